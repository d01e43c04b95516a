// Package smdp is an SM-DP+ and SM-DS for tests: the ES9+ and ES11 functions of
// SGP.22 v2.5 over HTTPS with real certificates, signatures and bound profile
// packages, an order book, a log of notifications, and faults on demand.
//
//	p, err := pki.New(pki.Options{SMDPHost: "smdp.example.com"})
//	s, err := smdp.New(smdp.Config{
//		Address:     "smdp.example.com",
//		Credentials: []smdp.Credential{{Auth: p.DPAuth, Pb: p.DPPb}},
//		CIs:         []*pki.Certificate{p.CI.Certificate},
//	})
//	err = s.AddOrder(smdp.Order{MatchingID: "AB-1", UPP: profile, Metadata: smdp.Metadata{ICCID: iccid, ServiceProvider: "Test", Name: "Plan"}})
//	go s.Serve(ctx, listener, p.DPTLS)
//	…
//	entry, err := s.WaitNotification(ctx, func(n smdp.Notification) bool { return n.Event == rsp.EventEnable })
//
// [Server] is an http.Handler; [Server.Serve] puts it behind TLS. With
// [Config.SMDS] it is an SM-DS, which hands out [Event]s instead of profiles.
//
// # What it checks
//
// Everything that SGP.22 says a server checks, in this order, with these codes
// (subject/reason); for an SM-DS the subjects 8.8.x are 8.9.x:
//
//	any                     Content-Type 1.2.1/2.1, X-Admin-Protocol 1.2.2/2.1, body 1.6/2.1
//	initiateAuthentication  smdpAddress 8.8.1/3.8, SVN 8.8.3/3.1, no CI in common that the eUICC
//	                        signs under 8.8.2/3.1, no server certificate under a CI that it verifies 8.8.4/3.7
//	authenticateClient      transactionId 8.10.1/3.9, CI of the EUM 8.11.1/3.9, EUM 8.1.2/6.1 and 6.3, eUICC
//	                        8.1.3/6.1 and 6.3, EID range 8.1.4/6.1, signature and server challenge 8.1/6.1,
//	                        matching id 8.2.6/3.8, EID of the order, or nothing for it 8.1.1/3.8, released 8.2/1.2, expired
//	                        8.8.5/4.10, downloads 8.8.5/6.4, code tries 8.2.7/6.4, device 8.2.5/4.3, memory 8.1/4.8;
//	                        SM-DS: no event for this EID 8.9.5/3.9
//	getBoundProfilePackage  transactionId 8.10.1/3.9, signature 8.1/6.1, confirmation code missing 8.2.7/2.2,
//	                        wrong 8.2.7/3.8, tries used up 8.2.7/6.4, bound to another key 8.2/3.7
//	cancelSession           transactionId 8.10.1/3.9, signature 8.1/6.1, OID 8.8/3.10
//	handleNotification      nothing: it answers 204 and writes down what it found
//
// # Faults
//
// [Server.Inject] makes any function refuse, tamper, drop, stall or answer with
// an HTTP error, always or for some calls. Faults of TLS are made by giving
// Serve another certificate.
//
// A Server may be used by several goroutines. It holds all its state in memory.
package smdp
