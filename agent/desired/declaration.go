package desired

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"lpad/agent/job"
	"lpad/agent/rsp"
	"lpad/internal/fault"
	"lpad/internal/redact"
)

// Bounds of a file.
const (
	MaxFile = 16 << 10 // bytes of a file, and of one that it names

	maxText    = 300 // bytes of a value in one line, longer than any activation code
	maxList    = 64  // devices that a file is for
	maxFaults  = 8   // that are told of one file
	maxName    = 64  // bytes
	markLength = 8
	imeiDigits = 15
)

// MaxNickname is the longest nickname of a declaration, in bytes: a card takes 64
// (SGP.22 v2.5, section 5.7.21), and the mark needs room beside it.
const MaxNickname = 64 - markLength - len(" []")

// Declaration is what one file says: a profile that the device shall have.
type Declaration struct {
	File       string
	Name       string // for people, and in the jobs' By
	Mark       string // its identity; see [Parse]
	Generation string // changes with each change of the file, or of one that it names

	Source           job.Source
	Code             rsp.ActivationCode // of job.SourceActivationCode
	ConfirmationCode redact.Secret
	ICCID            rsp.ICCID // of the profile, where it is known beforehand; zero: it is not
	Nickname         string    // with the mark: "meter-uplink [7k3f9q2a]"
	Parameters       json.RawMessage
	Enabled          bool
	AcceptRules      bool // also a profile that cannot be disabled or deleted

	// Whom the file is for; all that is said must fit. Without any of it the file is
	// for the device's first card.
	EIDs  []string
	IMEIs []string
	Cards []string // their names in the configuration
}

// By is who orders the jobs of the declaration.
func (d *Declaration) By() string { return "profiles.d/" + d.Name }

// What a file may say. Of files a value may be "file:NAME", of lists there may be
// several.
var (
	members = []string{"version", "name", "code", "source", "confirmation_code", "nickname", "iccid", "parameters", "enabled", "accept_rules", "eid", "imei", "card"}
	files   = []string{"code", "confirmation_code", "parameters"}
	lists   = []string{"eid", "imei", "card"}
)

// parser walks the nodes of one file. Nodes and not structs: so every fault has its
// line, and no alias is followed.
type parser struct {
	file   string
	read   func(string) ([]byte, error)
	sum    hash.Hash
	said   map[string][]string
	line   map[string]int
	faults []error
}

func (p *parser) failAt(line int, key, text string) {
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, errors.New(p.file+":"+strconv.Itoa(max(line, 1))+": "+key+": "+text))
	}
}

// fail is about a member as a whole; one that is not there is missed in line 1.
func (p *parser) fail(key, text string) { p.failAt(p.line[key], key, text) }

// Parse reads one file. read gives those beside it that it names. private reports
// that a secret stands in the text itself, which others must not be able to read
// then. The error has a line for each fault, with file and line; it quotes nothing
// of what was read but names of members.
//
// The mark of a declaration are eight letters and digits: a hash of the activation
// code, so that a file which is renamed stays the same, or, where there is none, of
// the declaration's name. It is too short to tell a code.
func Parse(file string, text []byte, read func(name string) ([]byte, error)) (d *Declaration, private bool, err error) {
	p := &parser{file: file, read: read, sum: sha256.New(), said: map[string][]string{}, line: map[string]int{}}
	p.sum.Write(text)
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case len(text) > MaxFile:
		p.failAt(1, "file", "it is too long")
	case err != nil && !errors.Is(err, io.EOF):
		p.failAt(1, "YAML", position(err))
	case len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode || doc.Content[0].Anchor != "":
		p.failAt(doc.Line, "file", "members are wanted, such as code: and nickname:")
	case !errors.Is(dec.Decode(&more), io.EOF):
		p.failAt(more.Line, "file", "one document is wanted")
	default:
		p.walk(doc.Content[0].Content)
	}
	d = &Declaration{File: file}
	if len(p.faults) == 0 {
		for _, key := range files {
			private = private || p.line[key] != 0 && !strings.HasPrefix(p.said[key][0], "file:")
		}
		p.fill(d)
	}
	if len(p.faults) > 0 {
		return nil, private, errors.Join(p.faults...)
	}
	d.Generation = hex.EncodeToString(p.sum.Sum(nil)[:8])
	return d, private, nil
}

// position is what a YAML error says, without the text that it may quote.
func position(err error) string {
	text := err.Error()
	if at := strings.IndexAny(text, "`'\""); at >= 0 {
		text = text[:at]
	}
	return rsp.DisplayText(rsp.CutText(text, 100))
}

// walk reads the members, each once.
func (p *parser) walk(nodes []*yaml.Node) {
	for i := 0; i+1 < len(nodes); i += 2 {
		k, v := nodes[i], nodes[i+1]
		key := rsp.DisplayText(rsp.CutText(k.Value, 40))
		if !slices.Contains(members, key) || p.line[key] != 0 {
			p.failAt(k.Line, key, "this member is not known, or is there twice")
			continue
		}
		p.line[key] = k.Line
		items := []*yaml.Node{v}
		if slices.Contains(lists, key) && v.Kind == yaml.SequenceNode && v.Anchor == "" && len(v.Content) <= maxList {
			items = v.Content
		}
		for _, n := range items {
			limit := maxText
			if key == "parameters" {
				limit = MaxFile
			}
			if n.Kind != yaml.ScalarNode || n.Anchor != "" || n.ShortTag() == "!!null" || n.Value == "" || len(n.Value) > limit {
				p.failAt(n.Line, key, "a plain value of 1 to "+strconv.Itoa(limit)+" bytes is wanted, without anchor and alias")
			}
			p.said[key] = append(p.said[key], n.Value)
		}
	}
}

// get is the value of a member, or what is in the file that it names, which counts
// for the generation; empty: there is none.
func (p *parser) get(key string) string {
	if p.line[key] == 0 {
		return ""
	}
	text := p.said[key][0]
	if name, is := strings.CutPrefix(text, "file:"); is && slices.Contains(files, key) {
		b, err := p.read(strings.TrimSpace(name))
		if err != nil {
			p.fail(key, err.Error())
		}
		p.sum.Write([]byte("\x00" + key + strconv.Itoa(len(b))))
		p.sum.Write(b)
		text = strings.TrimSpace(string(b))
		if text == "" || len(text) > maxText && key != "parameters" {
			p.fail(key, "its file is empty, or too long")
		}
	}
	if key != "parameters" && rsp.DisplayText(text) != text {
		p.fail(key, "printable characters are wanted")
	}
	return text
}

func (p *parser) yes(key string) bool {
	switch p.get(key) {
	case "yes", "true":
		return true
	case "", "no", "false":
	default:
		p.fail(key, "yes or no is wanted")
	}
	return false
}

// fill makes a declaration of what was said.
func (p *parser) fill(d *Declaration) {
	if p.get("version") != "1" {
		p.fail("version", "1 is wanted")
	}
	if d.Name = p.get("name"); d.Name == "" {
		d.Name = strings.TrimSuffix(p.file, ".yaml")
	}
	if len(d.Name) > maxName || strings.Trim(d.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		p.fail("name", "letters, digits, dots and dashes are wanted; without a name the file's counts")
	}
	identity := d.Name
	d.Source = job.Source(p.get("source"))
	if code := p.get("code"); code != "" {
		var err error
		if d.Code, err = rsp.ParseActivationCode(code); err != nil || d.Source != "" { // its text may show what stands in the wrong place
			p.fail("code", "an activation code is wanted, and no source beside it: "+fault.Of(err).Code)
		}
		d.Source, identity = job.SourceActivationCode, strings.ToLower(d.Code.SMDP)+"\x00"+d.Code.MatchingID
	} else if d.Source != job.SourceDefaultSMDP && d.Source != job.SourceSMDS {
		p.fail("source", "default-smdp or smds is wanted, or a code")
	}
	d.Mark = markFor(string(d.Source) + "\x00" + identity)
	confirm := p.get("confirmation_code")
	if d.Code.ConfirmationCodeRequired && confirm == "" {
		p.failAt(p.line["code"], "confirmation_code", "the activation code needs one")
	}
	d.ConfirmationCode = redact.NewSecret(confirm)
	if d.Nickname = p.get("nickname"); d.Nickname == "" {
		d.Nickname = rsp.CutText(d.Name, MaxNickname)
	}
	if len(d.Nickname) > MaxNickname {
		p.fail("nickname", "at most "+strconv.Itoa(MaxNickname)+" bytes are wanted")
	}
	d.Nickname += " [" + d.Mark + "]"
	if iccid := p.get("iccid"); iccid != "" {
		var err error
		if d.ICCID, err = rsp.ParseICCID(iccid); err != nil {
			p.fail("iccid", "18 to 20 digits are wanted")
		}
	}
	if text := p.get("parameters"); text != "" {
		d.Parameters = json.RawMessage(text)
	}
	d.Enabled, d.AcceptRules = p.yes("enabled"), p.yes("accept_rules")
	d.EIDs, d.IMEIs, d.Cards = p.said["eid"], p.said["imei"], p.said["card"]
	for i, text := range d.EIDs {
		eid, err := rsp.ParseEID(text)
		if err != nil {
			p.fail("eid", "32 digits are wanted")
		}
		d.EIDs[i] = eid.String()
	}
	for _, imei := range d.IMEIs {
		if len(imei) != imeiDigits || strings.Trim(imei, "0123456789") != "" {
			p.fail("imei", "15 digits are wanted")
		}
	}
	for _, key := range lists {
		if p.line[key] != 0 && len(p.said[key]) == 0 {
			p.fail(key, "an empty list is for no device")
		}
	}
}

// alphabet has no letters that are mistaken for digits.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// markFor makes a mark of what tells a declaration from others.
func markFor(identity string) string {
	sum := sha256.Sum256([]byte("lpad profiles.d\x00" + identity))
	for i := range markLength {
		sum[i] = alphabet[sum[i]%32]
	}
	return string(sum[:markLength])
}

// markOf is the mark at the end of a nickname; empty: there is none.
func markOf(nickname string) string {
	at := len(nickname) - markLength - len("[]")
	if at < 0 || nickname[at] != '[' || nickname[len(nickname)-1] != ']' {
		return ""
	}
	return nickname[at+1 : len(nickname)-1]
}
