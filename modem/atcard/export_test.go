package atcard

// These read the answers of a modem.
var (
	ParseHandle   = parseHandle
	ParseResponse = parseResponse
	ChannelOf     = channelOf
	SessionOf     = sessionOf
	ValidID       = validID
)
