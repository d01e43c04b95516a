package params_test

import (
	"runtime"
	"testing"

	"lpad/agent/params"
	"lpad/modem/carrierdb"
)

// shared is a profile on the network that the most providers share.
var shared = params.Profile{MCC: "505", MNC: "02"}

// resolve is what a switch asks: the list, then everybody.
func resolve(t testing.TB, db *carrierdb.DB, given []params.Given) params.Effective {
	t.Helper()
	found, err := db.Lookup(shared.Query())
	if err != nil {
		t.Fatal(err)
	}
	e, err := params.Resolve(params.Input{Profile: shared, Given: given, Database: found})
	if err != nil || len(e.Attempts()) != 5 {
		t.Fatal(e.Attempts(), err)
	}
	return e
}

// BenchmarkResolve is bound to 5 ms cold and 100 µs warm.
func BenchmarkResolve(b *testing.B) {
	given := makers(b)
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			resolve(b, providers(b), given)
		}
	})
	b.Run("warm", func(b *testing.B) {
		db := providers(b)
		b.ReportAllocs()
		for b.Loop() {
			resolve(b, db, given)
		}
	})
	b.Run("documents", func(b *testing.B) { // all of it but the list
		b.ReportAllocs()
		for b.Loop() {
			if _, err := params.Resolve(params.Input{Profile: shared, Given: given}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What stays in memory after a resolution is an index of the list.
func TestHeld(t *testing.T) {
	given := makers(t)
	const bound = 2 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	db := providers(t)
	e := resolve(t, db, given)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > bound/16 {
		t.Errorf("%d bytes are held; %d are allowed, and a sixteenth of them is enough", held, bound)
	}
	runtime.KeepAlive(db)
	runtime.KeepAlive(e)
}
