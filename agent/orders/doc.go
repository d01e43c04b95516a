// Package orders reads signed orders: what an operator wants done to the
// profiles of a device, as one document that carries its own proof. It says
// whether to believe one, never what becomes of it.
//
//	keys, err := orders.LoadKeys("/etc/lpad/operators.d")
//	…
//	o, err := orders.Verify(body, keys, time.Now(), orders.Device{EID: eid, IMEI: imei, Model: model})
//	if err != nil { … }                       // explained by package fault; nothing of o counts
//	if o.BySMDP { … }                         // not proven yet: see below
//
// An order is a compact JWS (RFC 7515) by ES256 (RFC 7518: ECDSA, P-256,
// SHA-256, the signature as 64 raw bytes) and nothing else. The signature is
// verified over the bytes as they came; nothing is ever encoded again.
//
//	header   {"alg":"ES256","typ":"lpad-order+jwt","kid":"OPERATOR"}
//	payload  {"iss":"OPERATOR","serial":7,"iat":1765000000,"exp":1765086400,
//	          "eid":"8904…","tac":"35693803","action":"install",
//	          "activationCode":"LPA:1$smdp.example.com$M-1","iccid":"8949…",
//	          "enable":"now","parameters":{…},"reportTo":"https://…"}
//
//	iss             as kid; the key is the file of this name
//	serial          grows from order to order of one issuer
//	iat nbf exp     seconds since 1970; nbf may be left out
//	eid imei tac    the device that is meant: each may be left out, each that is
//	model           there must be this device's; what is not known does not fit
//	action          install, enable, disable, delete
//	activationCode  of install
//	matchingId      of install: must be the code's
//	iccid           the profile; of install: the one that the server must offer
//	enable          of install: "now", "on-command" (as if it was left out) or a
//	                time (RFC 3339); of enable: "now" (as if left out) or a time
//	deleteOld       delete the profile of before when the new one is proven
//	parameters      terminal parameters (agent/params), of install and enable
//	reportTo        https address that gets the report of the end
//
// Reading is strict, because what is signed must be understood whole: no member
// that is not listed above, none twice, in the header nothing but alg, typ and
// kid (so no "crit", no "b64", and no key that the sender brings along).
//
// The kid [SMDP] stands for the SM-DP+ that the order downloads from. Its key is
// that of the CERT.DPauth which the eUICC accepts when the download begins, so
// [Verify] leaves the signature open and says so by [Order.BySMDP]; who has the
// certificate calls [VerifySMDP] before anything is loaded. Such an order can
// only install.
//
// What is not looked at here, because it needs a memory: whether the serial was
// used before (agent/runner).
//
// The package is pure but for [LoadKeys], which reads a folder.
package orders
