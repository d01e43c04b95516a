package atmodem

// The readers of what a modem says.
var (
	IMEI       = imei
	ParseICCID = parseICCID
	ParseSPN   = parseSPN
	ParseGID   = parseGID
	FileSize   = fileSize
	ParseClock = parseClock
	Fields     = fields
	HomePLMN   = homePLMN
	MNCLength  = mncLength
	ParseSlot  = parseSlot

	ParseSetting    = parseSetting
	SettingCommands = settingCommands
	ParseParameters = parseParameters
	ParseAddresses  = parseAddresses
)
