// Package modemtest is a cellular modem to test against: an AT modem whose SIM
// is a [Card] of APDUs and whose operator is honest, and launchers for the
// real programs that use such a modem on a device.
//
// # The AT modem
//
// [New] makes a modem. Give it a card (the software eUICC of
// agent/rsp/rsptest/euicc, or anything that answers APDUs), one or more ports,
// and talk AT to them:
//
//	m, err := modemtest.New(modemtest.Config{Card: card, Subscriptions: subs})
//	port, err := m.OpenPTY(filepath.Join(dir, "ttyUSB0")) // or m.ListenUnix(path)
//	defer m.Close()
//
// What makes it worth testing against is what it does not do for you. The SIM
// data it shows (ICCID, IMSI, operator) was read from the card by APDUs when
// the SIM was powered up, and stays as it was after an EnableProfile until the
// SIM is read anew (AT+CFUN=0 and 1, a reset, or a REFRESH of the card). It
// registers only with the IMSI of a [Subscription], and a context carries
// packets only if it names the access point of that very subscription. A
// session opened by AT+CCHO dies when the card is reset.
//
// Vendors differ by data, not by code: see [Dialect]; [Dialects] lists those
// of real families, with their bugs. How long a modem takes is [Config].Delays;
// [Modem.DelayBetween] tells how much of a time was the modem's own. A modem with
// a slot command may have a second card. Trouble is ordered by [Modem.AddFault].
// Every line of every port stands with its time in [Modem.Log], which tests
// search in order.
//
// # The stack
//
// [StartStack] starts a whole device around the modem: a private D-Bus, a
// stand-in for polkit, ModemManager over a made-up sysfs, NetworkManager, in
// network and mount namespaces of their own, with wwan0 as the only way out.
// Servers listen on the other side with [Stack.Listen], programs run on the
// device with [Stack.Command]. It needs root and Debian's packages:
// [RequireStack] skips a test where they are missing, and fails it instead if
// the environment says LPAD_REQUIRE=all.
//
// Methods are safe for concurrent use unless they say otherwise.
package modemtest
