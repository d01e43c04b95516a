package agent

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/agent/runner"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/internal/smallfile"
	"lpad/modem"
	"lpad/modem/carrierdb"
)

// settingsSource puts together what all sources want of the device for a
// profile; see runner.SettingsSource. The maker's folder is read anew for each
// question, so that a file that was put there counts at the next switch.
type settingsSource struct {
	cfg config.Params
	log *slog.Logger

	reloaded atomic.Pointer[config.Params] // takes the place of cfg; see [Agent.Reload]

	mu      sync.Mutex
	skipped []string      // what was wrong with the maker's folder the last time
	list    *carrierdb.DB // kept once it has been opened: it holds an index of some kilobytes
}

// config is what is configured at present.
func (s *settingsSource) config() *config.Params {
	if p := s.reloaded.Load(); p != nil {
		return p
	}
	return &s.cfg
}

// use takes other settings into use, at a reload.
func (s *settingsSource) use(p config.Params) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloaded.Store(&p)
	s.list = nil
}

// maxOrdered bounds the document of an order, in bytes: it is written to flash
// again with each step of its job.
const maxOrdered = 8 << 10

// CheckDocument refuses terminal parameters that make no sense, before the
// order is accepted.
func (s *settingsSource) CheckDocument(document json.RawMessage) error {
	_, err := s.parse(document)
	return err
}

// Generation is the generation of a document.
func (s *settingsSource) Generation(document json.RawMessage) int64 {
	d, err := s.parse(document)
	if err != nil || d == nil {
		return 0
	}
	return d.Generation
}

// scope is the profile that a document names; zero: none.
func (s *settingsSource) scope(document json.RawMessage) rsp.ICCID {
	d, err := s.parse(document)
	if err != nil || d == nil {
		return rsp.ICCID{}
	}
	return d.Scope.ICCID
}

// parse reads the document of an order. It came over the local socket, whose
// other end the kernel vouches for, so it may hold passwords.
func (s *settingsSource) parse(document json.RawMessage) (*params.Document, error) {
	if len(document) == 0 {
		return nil, nil
	}
	return params.Parse(document, params.Options{Confidential: true, Limit: maxOrdered})
}

// given is a document with what tells it from others.
type given struct {
	params.Given
	origin runner.Origin
}

func give(d *params.Document, rank params.Rank, source string, content []byte) given {
	return given{params.Given{Document: d, Rank: rank, Source: source},
		runner.Origin{Source: source, Generation: d.Generation, Digest: fmt.Sprintf("%08x", crc32.ChecksumIEEE(content))}}
}

// Wanted asks all sources.
func (s *settingsSource) Wanted(q runner.Question) (switchover.Wanted, runner.Effective, error) {
	var said runner.Effective
	in := params.Input{Profile: paramsProfile(q.Profile, q.SIM), Good: q.Good, Secrets: map[string]redact.Secret{}}
	var list []given
	if d, raw, err := s.ofProfile(q.Profile); err != nil {
		said.Notes = append(said.Notes, fault.Of(err).Code+": the parameters in the profile's metadata are left out: "+err.Error())
	} else if d != nil {
		list = append(list, give(d, params.RankProfile, params.SourceProfile, raw))
	}
	if doc, err := s.parse(q.Document); err != nil && q.Kept {
		// It was good when it was taken. What else there is may do, first of all what
		// carried data before; if it does not, the switch is taken back.
		said.Unreadable = true
		said.Notes = append(said.Notes, "the document that is kept for the profile ("+q.Source+") is left out, and stays: "+err.Error())
	} else if err != nil {
		return switchover.Wanted{}, said, err
	} else if doc != nil {
		if err := s.secrets(doc, secretFolder(q.Source), in.Secrets); err != nil {
			return switchover.Wanted{}, said, err
		}
		list = append(list, give(doc, params.RankOrder, q.Source, q.Document))
	}
	oem := s.ofMaker(in.Secrets)
	list = append(list, oem.given...)
	in.Limits = oem.limits
	s.remember(oem.skipped)
	said.Notes = append(said.Notes, oem.skipped...)
	for _, g := range list {
		in.Given = append(in.Given, g.Given)
	}
	if q.Suspended != nil {
		in.Suspended = func(source string, generation int64) bool {
			return slices.ContainsFunc(list, func(g given) bool {
				return g.Source == source && g.origin.Generation == generation && q.Suspended(g.origin)
			})
		}
	}
	if in.Profile.MCC != "" || in.Profile.IMSI != "" {
		in.Database = s.lookUp(in.Profile)
	}
	e, err := params.Resolve(in)
	if err != nil {
		return switchover.Wanted{}, said, err
	}
	explain(&said, e, list)
	for _, g := range list {
		said.Given = append(said.Given, g.origin)
	}
	wanted := switchover.Wanted{Attach: e.Attach(), Radio: e.Radio()}
	for _, l := range e.Attempts() {
		wanted.Candidates = append(wanted.Candidates, switchover.Candidate{APN: l.Value, Source: l.Source})
	}
	for _, l := range e.Others() {
		wanted.Others = append(wanted.Others, l.Value)
	}
	return wanted, said, nil
}

// ofProfile reads the parameters that the profile itself carries, and that the
// eUICC has authenticated with it; nil: it carries none that are for us.
func (s *settingsSource) ofProfile(p rsp.Profile) (*params.Document, []byte, error) {
	if len(p.Proprietary) == 0 || len(s.config().ProfileOIDs) == 0 {
		return nil, nil, nil
	}
	e1, ok, err := params.FromMetadata(p.Proprietary, s.config().ProfileOIDs)
	if err != nil || !ok {
		return nil, nil, err
	}
	d, err := params.ParseTLV(e1)
	return d, e1, err
}

// paramsProfile says what is known of a profile. Before it is enabled the card
// tells its owner, if the operator wrote one; then the modem tells the rest.
func paramsProfile(p rsp.Profile, sim modem.SIM) params.Profile {
	out := params.Profile{ICCID: p.ICCID, IMSI: sim.IMSI, SPN: p.ServiceProvider, GID1: sim.GID1}
	if sim.SPN != "" {
		out.SPN = sim.SPN
	}
	plmn := sim.PLMN
	if p.Owner != nil {
		if plmn == "" {
			plmn = p.Owner.PLMN()
		}
		if out.GID1 == "" {
			out.GID1 = hex.EncodeToString(p.Owner.GID1)
		}
	}
	if len(plmn) >= 5 {
		out.MCC, out.MNC = plmn[:3], plmn[3:]
	}
	return out
}

// lookUp asks the provider list. A list that is missing or damaged is no
// reason to give a switch up: the network may know its default.
func (s *settingsSource) lookUp(p params.Profile) []carrierdb.Candidate {
	db, err := s.openList()
	if err == nil {
		var found []carrierdb.Candidate
		if found, err = db.Lookup(p.Query()); err == nil {
			return found
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		s.log.Info("no provider list on this device", "path", s.config().ProviderDB)
		return nil
	}
	s.log.Warn("provider list not read", "path", s.config().ProviderDB, "err", err)
	return nil
}

func (s *settingsSource) openList() (*carrierdb.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list != nil {
		return s.list, nil
	}
	db, err := carrierdb.Open(s.config().ProviderDB)
	if err == nil {
		s.list = db
	}
	return db, err
}

// maxSecret bounds a password in a file, in bytes.
const maxSecret = 1024

// Folders of passwords, below the maker's. An order reads none but those that
// were put there for orders, and a signed one none but its issuer's: whoever
// writes the document chooses the network that gets to see the password.
const (
	secretsDir = "secrets"
	noSecrets  = "" // an SM-DP+ that signs its orders: nobody here has chosen it
)

// secretFolder is where the passwords of a source of orders are.
func secretFolder(source string) string {
	issuer, signed := strings.CutPrefix(source, params.SourceOrder+": ")
	switch {
	case !signed:
		return secretsDir
	case issuer == "" || issuer[0] == '.' || strings.ContainsAny(issuer, ":/"):
		return noSecrets
	}
	return secretsDir + "/" + issuer
}

// secrets reads the passwords that a document refers to: from files that lie in
// folder itself, below the maker's, and are readable for lpad alone. A document
// must not make a daemon of root read whatever its author would like to see.
func (s *settingsSource) secrets(doc *params.Document, folder string, out map[string]redact.Secret) error {
	if len(doc.SecretRefs()) == 0 {
		return nil
	}
	root, err := os.OpenRoot(s.config().OEMDir)
	if err != nil {
		return secretError("the folder for passwords cannot be opened", err)
	}
	defer root.Close()
	var failed error
	for _, ref := range doc.SecretRefs() {
		name, ok := strings.CutPrefix(ref, "file:")
		if ok && filepath.IsAbs(name) {
			name, err = filepath.Rel(s.config().OEMDir, name)
		}
		if !ok || err != nil || !filepath.IsLocal(name) || folder == noSecrets || filepath.Dir(name) != folder {
			where := "a password of this document must be in a file of " + filepath.Join(s.config().OEMDir, folder)
			if folder == noSecrets {
				where = "an order that an SM-DP+ has signed reads no password from this device"
			}
			failed = secretError(where, err)
			continue
		}
		text, err := readSecret(root, s.config().OEMDir, name)
		if err != nil {
			failed = secretError("a password cannot be read", err)
			continue
		}
		out[ref] = redact.NewSecret(text)
	}
	return failed
}

// readSecret reads one password; root is open at dir.
func readSecret(root *os.Root, dir, name string) (string, error) {
	for at, c := range name + "/" { // no part of the way may be a link, which could lead to another's
		if c != '/' {
			continue
		}
		st, err := os.Lstat(dir + "/" + name[:at])
		if err == nil && at < len(name) != st.IsDir() || err == nil && at == len(name) && !st.Mode().IsRegular() {
			err = fmt.Errorf("%s is not what it should be, a file in a folder", name[:at])
		}
		if err == nil {
			err = trusted(st)
		}
		if err == nil && at == len(name) && st.Mode().Perm()&0o007 != 0 {
			err = fmt.Errorf("others may read %s (mode %04o): chmod o=", name, st.Mode().Perm())
		}
		if err != nil {
			return "", err
		}
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not keep us
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := smallfile.ReadOpen(f, maxSecret)
	return strings.TrimRight(string(b), "\r\n"), err
}

func secretError(text string, err error) error {
	return fault.New(fault.Fault{Code: "secret-missing", Text: text, Who: fault.Configuration, Next: "put the file there, readable for lpad alone, and have the document name it (docs/operations.md, Passwords)"}, err)
}
