package mm

// What the settings of the radio are made of.
var (
	WantedModes = wantedModes
	WantedBands = wantedBands
	SettingArg  = settingArg
	SettingOf   = settingOf
)
