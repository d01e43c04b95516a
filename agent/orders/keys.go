package orders

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"lpad/internal/fault"
	"lpad/internal/smallfile"
)

// Limits of a folder of keys.
const (
	maxKeys    = 64
	maxKeyFile = 16 << 10 // bytes
	maxKID     = 64       // characters
)

// Keys are the keys of the operators that are believed.
type Keys struct {
	byKID map[string]*ecdsa.PublicKey

	// Skipped says of each file that is no key why not, by its name.
	Skipped []string
}

// Len is the number of keys.
func (k Keys) Len() int { return len(k.byKID) }

// LoadKeys reads a folder: each file NAME.pem is the key of the kid NAME, a
// public key (SubjectPublicKeyInfo) or a certificate, for P-256. Of a
// certificate only the key counts: neither its dates nor its issuer are looked
// at, and to take a key back is to remove its file. A file that is no such key
// is left out and named in [Keys.Skipped]: it must not keep another operator's
// orders from being believed. A folder that is not there holds no keys.
func LoadKeys(dir string) (Keys, error) {
	k := Keys{byKID: map[string]*ecdsa.PublicKey{}}
	if dir == "" {
		return k, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, fault.New(fault.Fault{Code: CodeKey, Text: "the folder of the operators' keys cannot be read", Who: fault.Configuration,
			Next: "make " + dir + " readable for lpad"}, err)
	}
	for _, e := range entries {
		kid, isKey := strings.CutSuffix(e.Name(), ".pem")
		if !isKey {
			continue
		}
		key, err := (*ecdsa.PublicKey)(nil), error(nil)
		switch {
		case kid == SMDP:
			err = errors.New("this name stands for the SM-DP+ of the download")
		case !validKID(kid):
			err = errors.New("this is no name of a key")
		case len(k.byKID) == maxKeys:
			err = fmt.Errorf("there are more than %d keys", maxKeys)
		default:
			key, err = readKey(dir + "/" + e.Name())
		}
		if err != nil {
			k.Skipped = append(k.Skipped, fmt.Sprintf("%s: %v", short(e.Name()), err))
			continue
		}
		k.byKID[kid] = key
	}
	return k, nil
}

// validKID reports whether a kid can be a file's name.
func validKID(kid string) bool {
	if kid == "" || len(kid) > maxKID || kid[0] == '.' || kid[0] == '-' {
		return false
	}
	for _, c := range []byte(kid) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

func readKey(path string) (*ecdsa.PublicKey, error) {
	text, err := smallfile.Read(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	return parseKey(text)
}

// parseKey reads one PEM block, and refuses a second one: it would not be clear
// which of them counts.
func parseKey(text []byte) (*ecdsa.PublicKey, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	if second, _ := pem.Decode(rest); second != nil {
		return nil, errors.New("more than one PEM block")
	}
	switch block.Type {
	case "CERTIFICATE":
		return certificateKey(block.Bytes)
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		return p256(key)
	}
	return nil, fmt.Errorf("a PEM block of type %q, not PUBLIC KEY or CERTIFICATE", short(block.Type))
}

func certificateKey(der []byte) (*ecdsa.PublicKey, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return p256(c.PublicKey)
}

func p256(key any) (*ecdsa.PublicKey, error) {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("not a key for P-256")
	}
	return k, nil
}
