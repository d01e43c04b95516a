package atcard

// ParseHandle and ParseResponse read the answers of a modem.
var (
	ParseHandle   = parseHandle
	ParseResponse = parseResponse
)
