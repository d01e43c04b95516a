// Package vectors finds the public test vectors: a recorded session (folder
// session), the PKI of GSMA SGP.26 (sgp26), the profiles of GSMA TS.48 (upp).
// They are not part of the project: they lie in ../shared/vectors beside it, or
// where LPAD_VECTORS says.
//
//	der := vectors.Read(t, "session/euicc-info1.der")
//
// A test that needs one is skipped where there is none, and fails instead if
// the environment says LPAD_REQUIRE=all.
package vectors

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir is the path of a folder of vectors.
func Dir(t testing.TB, folder string) string {
	t.Helper()
	path := filepath.Join(Root(t), folder)
	if _, err := os.Stat(path); err != nil {
		missing(t, err)
	}
	return path
}

// Read reads one vector.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(Root(t), name))
	if err != nil {
		missing(t, err)
	}
	return b
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("LPAD_REQUIRE") == "all" {
		t.Fatalf("test vectors are required: %v", err)
	}
	t.Skipf("no test vectors (set LPAD_VECTORS): %v", err)
}

// Root is the folder of all vectors, whether it is there or not. Tests run in the folder of
// their package.
func Root(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("LPAD_VECTORS"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	return filepath.Join(dir, "..", "shared", "vectors")
}
