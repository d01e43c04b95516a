package agent

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"lpad/agent/params"
	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/config"
	"lpad/internal/fault"
	"lpad/internal/redact"
	"lpad/modem"
	"lpad/modem/carrierdb"
)

// SourceLastGood is the source of an access point that has carried data with
// the profile before: it stands below an order and above the provider list.
const SourceLastGood = "last-good"

// settingsSource knows which access points may be right for a profile: those
// of the order's document, else those of the provider list for the profile's
// home network; see runner.SettingsSource.
type settingsSource struct {
	cfg config.Params
	log *slog.Logger
}

// CheckDocument refuses terminal parameters that make no sense, before the
// order is accepted.
func (s *settingsSource) CheckDocument(document json.RawMessage) error {
	_, err := s.parse(document)
	return err
}

// parse reads the document of an order. It came over the local socket, whose
// other end the kernel vouches for, so it may hold passwords.
func (s *settingsSource) parse(document json.RawMessage) (*params.Document, error) {
	if len(document) == 0 {
		return nil, nil
	}
	return params.Parse(document, params.Options{Confidential: true})
}

// Candidates lists access points in the order of trust.
func (s *settingsSource) Candidates(document json.RawMessage, p rsp.Profile, sim modem.SIM, good *modem.APN) ([]switchover.Candidate, error) {
	doc, err := s.parse(document)
	if err != nil {
		return nil, err
	}
	in := params.Input{Profile: paramsProfile(p, sim), Given: []params.Given{{Document: doc, Rank: params.RankOrder, Source: params.SourceOrder}}}
	if in.Profile.MCC != "" || in.Profile.IMSI != "" {
		in.Database = s.lookUp(in.Profile)
	}
	if in.Secrets, err = s.secrets(doc); err != nil {
		return nil, err
	}
	effective, err := params.Resolve(in)
	if err != nil {
		return nil, err
	}
	for _, n := range effective.Notes {
		s.log.Info("terminal parameters", "iccid", p.ICCID, "source", n.Source, "note", n.Text)
	}
	var list []switchover.Candidate
	if doc != nil && doc.APNs.State != params.Absent {
		good = nil // an order knows better
	}
	if good != nil {
		list = append(list, switchover.Candidate{APN: *good, Source: SourceLastGood})
	}
	for _, a := range effective.Attempts() {
		if good != nil && a.Value.Name == good.Name && a.Value.User == good.User {
			continue // it is the first already
		}
		list = append(list, switchover.Candidate{APN: a.Value, Source: a.Source})
	}
	return list, nil
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
	db, err := carrierdb.Open(s.cfg.ProviderDB)
	if errors.Is(err, os.ErrNotExist) {
		s.log.Info("no provider list on this device", "path", s.cfg.ProviderDB)
		return nil
	}
	if err == nil {
		var found []carrierdb.Candidate
		if found, err = db.Lookup(p.Query()); err == nil {
			return found
		}
	}
	s.log.Warn("provider list not read", "path", s.cfg.ProviderDB, "err", err)
	return nil
}

// maxSecret bounds a password in a file, in bytes.
const maxSecret = 1024

// secrets reads the passwords that a document refers to. Only files in the
// maker's folder are read: a document must not make a daemon of root read
// whatever its author would like to see.
func (s *settingsSource) secrets(doc *params.Document) (map[string]redact.Secret, error) {
	if doc == nil || len(doc.SecretRefs()) == 0 {
		return nil, nil
	}
	root, err := os.OpenRoot(s.cfg.OEMDir)
	if err != nil {
		return nil, secretError("the folder for passwords cannot be opened", err)
	}
	defer root.Close()
	out := map[string]redact.Secret{}
	for _, ref := range doc.SecretRefs() {
		name, ok := strings.CutPrefix(ref, "file:")
		if ok && filepath.IsAbs(name) {
			name, err = filepath.Rel(s.cfg.OEMDir, name)
		}
		if !ok || err != nil || !filepath.IsLocal(name) {
			return nil, secretError("a password must be in a file of "+s.cfg.OEMDir, err)
		}
		text, err := readSecret(root, name)
		if err != nil {
			return nil, secretError("a password cannot be read", err)
		}
		out[ref] = redact.NewSecret(text)
	}
	return out, nil
}

func readSecret(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxSecret)
	}
	return strings.TrimRight(string(b), "\r\n"), err
}

func secretError(text string, err error) error {
	return fault.New(fault.Fault{Code: "secret-missing", Text: text, Who: fault.Configuration, Next: "put the file where the document says, readable for lpad"}, err)
}
