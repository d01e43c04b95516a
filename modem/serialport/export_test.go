package serialport

// HoldersIn and Suspect look into another /proc.
var (
	HoldersIn = holdersIn
	Suspect   = suspect
)
