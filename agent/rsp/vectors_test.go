package rsp_test

import (
	"bytes"
	"testing"

	"lpad/agent/rsp"
	"lpad/agent/rsp/rsptest/vectors"
)

func TestVectorValues(t *testing.T) {
	if i, err := rsp.ParseEUICCInfo1(vectors.Read(t, "session/euicc-info1.der")); err != nil || i.SVN != (rsp.Version{2, 0, 0}) {
		t.Errorf("euiccInfo1 %+v, %v", i, err)
	}
	m, err := rsp.ParseMetadata(vectors.Read(t, "session/store-metadata.der"))
	if err != nil || m.ICCID.String() != "89000123456789012341" || m.ServiceProvider != "euicc-rsp" {
		t.Errorf("metadata %+v, %v", m, err)
	}
	raw := vectors.Read(t, "session/pending-notification.der")
	n, err := rsp.ParsePendingNotification(raw)
	if err != nil || n.Result == nil || n.Result.Err() != nil || !bytes.Equal(n.Raw, raw) {
		t.Errorf("pending notification %+v, %v", n, err)
	}
}

func TestVectorCertificates(t *testing.T) {
	for _, name := range []string{"dpauth", "dppb", "eum", "euicc", "ci", "ci-2017"} {
		der := vectors.Read(t, "sgp26/"+name+".der")
		oid, err := rsp.CertificateOID(der)
		want := map[string]string{"dpauth": "2.999.10", "dppb": "2.999.10", "eum": "2.999.5"}[name]
		if want != "" && (err != nil || oid != want) {
			t.Errorf("%s: OID %s, %v, want %s", name, oid, err, want)
		}
		if name == "euicc" && err == nil {
			t.Errorf("%s: OID %s, it has none", name, oid)
		}
	}
}
