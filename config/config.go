// Package config reads the configuration of lpad: one YAML file, drop-ins
// beside it, and environment variables, over defaults, into a plain struct
// that is passed by value.
//
//	cfg, origins, err := config.Load("/etc/lpad/lpad.yaml", "/etc/lpad/lpad.d", os.Environ())
//	if errors.Is(err, config.ErrAbsent) {
//		// no main file: cfg holds the defaults, drop-ins and environment
//	} else if err != nil {
//		return err // *config.Error: every fault at once, each with its key
//	}
//
// Later sources win, key by key: defaults, the file, the drop-ins (*.yaml in
// the order of their names), the environment. Lists are replaced as a whole,
// maps are merged.
//
// Reading is strict, because a device in the field must not run with half of
// what its maker wrote: every file begins with "version: 1", a newer version
// is refused, so are an unknown or doubled key, a value of the wrong type, a
// duration without a unit ("30" where "30s" is meant), an IMEI without quotes
// and a second YAML document. The key "card.at_port" is the environment
// variable LPAD_CARD_AT_PORT; an empty variable counts as not set, a list is
// written with commas, a map as "host=address,host=address".
//
// There is no reload in here: to reload, Load again and compare.
package config

import "time"

// Version is the version of the configuration format that this program reads.
const Version = 1

// Config is the whole configuration. Its fields are documented by their keys
// in config/testdata/full.yaml as well.
type Config struct {
	Version  int    `key:"version"`
	StateDir string `key:"state_dir"` // the journal
	Socket   string `key:"socket"`    // of the local API

	Log     Log     `key:"log"`
	Card    Card    `key:"card"`
	Modem   Modem   `key:"modem"`
	Network Network `key:"network"`
	Clock   Clock   `key:"clock"`
	Params  Params  `key:"params"`
	Orders  Orders  `key:"orders"`
	RSP     RSP     `key:"rsp"`
	API     API     `key:"api"`
	Reports Reports `key:"reports"`
	Hooks   Hooks   `key:"hooks"`
	Fleet   Fleet   `key:"fleet"`
	Journal Journal `key:"journal"`

	// Cards are the cards of a device that has several, by name; see [Config.Units].
	Cards []Named `key:"-"`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `key:"level"`  // error, warn, info, debug, trace
	Format string `key:"format"` // text, json
}

// Card says how the eUICC is reached.
type Card struct {
	Backend    string `key:"backend"`     // auto, pcsc, at
	Reader     string `key:"reader"`      // part of the PC/SC reader's name; empty: the first with a card that nobody uses, and no security token
	ATR        string `key:"atr"`         // what the card's answer to reset is: hexadecimal, ? for any digit, * at the end for the rest; empty: any
	PCSCHelper string `key:"pcsc_helper"` // program, a path or a name in PATH
	ATPort     string `key:"at_port"`     // serial device of the modem: /dev/ttyUSB2, better a link of udev
	Baud       int    `key:"baud"`        // of the serial device; USB modems ignore it
	APDUPath   string `key:"apdu_path"`   // auto, ccho, csim: the AT commands that carry APDUs
	BlockSize  int    `key:"block_size"`  // bytes of a STORE DATA block; 0: the back-end's own
}

// Modem says which modem it is and who else drives it.
type Modem struct {
	Device  string `key:"device"`  // ModemManager's Device property; empty: the first
	Manage  string `key:"manage"`  // auto, modemmanager, none
	Inhibit string `key:"inhibit"` // auto, never, always: take the modem from ModemManager while its port is ours

	Slot string `key:"slot"` // the SIM slot of the card, by the number that the modem's maker gives it; empty: whichever is active

	QuirksDir string `key:"quirks_dir"` // what the device's maker knows of its modems (docs/modems.md); empty: nothing
}

// Network says how the device gets back on line after a switch.
type Network struct {
	Backend         string        `key:"backend"`          // auto, networkmanager, modemmanager, none
	Hook            string        `key:"hook"`             // program that brings the interface up and down where NetworkManager does not; empty: not lpad's business
	DeadMan         time.Duration `key:"dead_man"`         // the old profile comes back when the new one is not proven by then
	RegisterTimeout time.Duration `key:"register_timeout"` // for registration with a network, with one access point
	Probe           string        `key:"probe"`            // what must be reachable: tcp://host:port, tls://…, https://…, mqtt://…, mqtts://…, dns:name; empty: the order's SM-DP+
	ProbeTimeout    time.Duration `key:"probe_timeout"`    // until the probe must have succeeded
}

// Clock says whose time certificates are judged by.
type Clock struct {
	FromModem string `key:"from_modem"` // auto, never: ask the modem while the system's clock was never set
}

// Params says where terminal parameters come from.
type Params struct {
	ProviderDB  string   `key:"provider_db"`  // serviceproviders.xml of mobile-broadband-provider-info
	OEMDir      string   `key:"oem_dir"`      // documents of the device's maker, *.json, and passwords that documents refer to
	ProfileOIDs []string `key:"profile_oids"` // dotted; a profile's own parameters (dpProprietaryData) are read when their OID is one of these; empty: never
}

// Orders says whose signed orders are believed, and what must be signed.
type Orders struct {
	KeysDir string `key:"keys_dir"` // public keys of operators, KID.pem; empty: none
	Require string `key:"require"`  // none, parameters, all: what is refused without a signature
}

// RSP is about eSIM servers.
type RSP struct {
	TrustDir             string            `key:"trust_dir"`              // PEM files of further authorities
	AllowTestCI          bool              `key:"allow_test_ci"`          // INSECURE: accept servers of test CIs
	Protocol             string            `key:"protocol"`               // X-Admin-Protocol
	SendIMEI             string            `key:"send_imei"`              // auto, tac-only, off, or 15 digits
	Consent              string            `key:"consent"`                // ask, auto
	ConsentTimeout       time.Duration     `key:"consent_timeout"`        // after which an order is postponed
	Timeout              time.Duration     `key:"timeout"`                // for one answer of a server; for a profile package, which it may have to build, twice as long
	ISDRAIDs             []string          `key:"isdr_aids"`              // to try, hexadecimal; empty: the built-in list
	Addresses            map[string]string `key:"addresses"`              // host (lower case) -> "ip:port", for test setups
	NotificationRetry    time.Duration     `key:"notification_retry"`     // first wait before a notification is sent again; it doubles
	NotificationRetryMax time.Duration     `key:"notification_retry_max"` // longest wait
	PacketTimeout        time.Duration     `key:"packet_timeout"`         // for one answer that somebody carries to a device without a network
}

// API says which groups may use the local socket. Root may do everything; an
// empty group is root alone.
type API struct {
	Read    string `key:"read"`    // may look
	Operate string `key:"operate"` // may install, enable, disable
	Admin   string `key:"admin"`   // may do everything
}

// Reports says who is told how a job has ended.
type Reports struct {
	URL string `key:"url"` // https address that gets a report of each job whose order names no other; empty: nobody
	CA  string `key:"ca"`  // PEM file of the authorities for receivers of reports; empty: the system's
}

// Hooks are programs of the device's maker that follow the profile; they are in
// folders named by what has happened (docs/operations.md).
type Hooks struct {
	Dir     string        `key:"dir"`     // the folders are in it; empty: there are no hooks
	Timeout time.Duration `key:"timeout"` // after which one is killed; all for one event together may take four times as long
}

// Fleet says where profiles are declared that the device shall have (docs/fleet.md).
type Fleet struct {
	Dir string `key:"dir"` // declarations, *.yaml; empty: none
}

// Journal bounds what is kept on flash.
type Journal struct {
	MaxBytes int64 `key:"max_bytes"` // beyond which the log is compacted
}

// Default returns the configuration of a device that has none.
func Default() Config {
	return Config{
		Version:  Version,
		StateDir: "/var/lib/lpad",
		Socket:   "/run/lpad/lpad.sock",
		Log:      Log{Level: "info", Format: "text"},
		Card:     Card{Backend: "auto", PCSCHelper: "lpad-pcsc", Baud: 115200, APDUPath: "auto"},
		Modem:    Modem{Manage: "auto", Inhibit: "auto", QuirksDir: "/etc/lpad/quirks.d"},
		Network:  Network{Backend: "auto", DeadMan: 10 * time.Minute, RegisterTimeout: 3 * time.Minute, ProbeTimeout: 30 * time.Second},
		Clock:    Clock{FromModem: "auto"},
		Params: Params{
			ProviderDB: "/usr/share/mobile-broadband-provider-info/serviceproviders.xml",
			OEMDir:     "/etc/lpad/params.d",
		},
		Orders: Orders{KeysDir: "/etc/lpad/operators.d", Require: "none"},
		RSP: RSP{
			TrustDir: "/etc/lpad/trust.d", Protocol: "gsma/rsp/v2.2.2", SendIMEI: "auto",
			Consent: "ask", ConsentTimeout: 10 * time.Minute, Timeout: 30 * time.Second,
			NotificationRetry: 10 * time.Second, NotificationRetryMax: time.Hour, PacketTimeout: 72 * time.Hour,
		},
		API:     API{Read: "lpad", Operate: "lpad-admin"},
		Hooks:   Hooks{Dir: "/etc/lpad/hooks.d", Timeout: 30 * time.Second},
		Fleet:   Fleet{Dir: "/etc/lpad/profiles.d"},
		Journal: Journal{MaxBytes: 1 << 20},
	}
}
