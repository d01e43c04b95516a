package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"lpad/internal/redact"
)

// longDigits are runs of digits as identifiers have them: ICCID, EID, IMSI,
// IMEI and telephone numbers, as they are or inside of bytes in hexadecimal. A
// time in seconds or a job id is shorter, or has something in between.
// grouped are those that somebody has parted by spaces or hyphens; a date with
// its time has fewer digits.
var (
	longDigits = regexp.MustCompile(`[0-9]{10,}`)
	grouped    = regexp.MustCompile(`[0-9](?:[ -]?[0-9]){14,}`)
	jobID      = regexp.MustCompile(`^20[0-9]{6}-[0-9]{6}(-[0-9]{1,3})?$`) // the second of a second and so on has as many
)

// shortened takes the middle out of every identifier in a text.
func shortened(s string) string { return longDigits.ReplaceAllStringFunc(s, redact.Digits) }

// What may be secret in a text, and what takes its place. The separator of an
// activation code has several spellings where it has been through a URL or a
// JSON encoder.
var secrets = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?i)\b1(\$|%24|\\u0024)([a-z0-9.:-]*)(\$|%24|\\u0024)[^\s"'<>]*`), "1$$${2}$$" + redact.Mask},
	{regexp.MustCompile(`\b[0-9A-Z]{4,6}(?:-[0-9A-Z]{4,6}){2,}\b`), redact.Mask}, // a matching id as operators print it
	{regexp.MustCompile(`(?i)((?:matching|confirmation|activation)[-_ ]?(?:id|code)|password|passwd|passphrase|secret|token|authorization|cookie|\bpin|\bpuk|api[-_]?key)("?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?("[^"]*"|[^\s",;}]+)`), "${1}${2}" + redact.Mask},
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}`), "${1} " + redact.Mask},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)+`), redact.Mask}, // a token or a signed order
	{regexp.MustCompile(`(?i)\b([a-z][a-z0-9+]*://)(?:[^\s"'/@]*@)?([^\s"'/?#]+)[^\s"']*`), "${1}${2}/…"},
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|$)`), redact.Mask},
}

// scrubbed is a text that may be sent to anybody: no identifier, activation
// code, matching id, confirmation code, password or token as far as its form or
// its name tells. What a form cannot tell must not get here: see [redacted].
func scrubbed(s string) string {
	for _, one := range secrets {
		s = one.find.ReplaceAllString(s, one.with)
	}
	return shortened(grouped.ReplaceAllStringFunc(s, func(id string) string {
		if jobID.MatchString(id) {
			return id
		}
		return redact.Digits(strings.NewReplacer(" ", "", "-", "").Replace(id))
	}))
}

// kept are the members of the documents of package api that may be told;
// everything else is left out, so that a member of tomorrow is not told before
// somebody has decided so. Nicknames are not: people write anything into them.
// identifiers are those that are shortened whatever they look like.
var (
	kept = words(`version since state name backend path slot default job queued problem type status code title detail retry who next card cards
		network interface addresses apn pending oldest last_error next_try lost notifications reports trust fingerprint source test clock now set journal
		warnings last_event goroutines active configured svn profile_version firmware free_memory default_smdp root_smds ci_verification ci_signing category
		sas_accreditation as_of at place manufacturer model revision capabilities answer value evidence next ms usable apdu_path block_size isdr enable ladder
		lines notes sources learned rung iccid_command managers modemmanager networkmanager plugin device ports manager_problem profile profiles
		service_provider class rules last_known_good quarantine attempts seq event address failures outcome by dropped lost_reports enabled parameters document
		suspended leaf rank scope generation bytes id kind step ended created progress done total smdp code_required apn_source undelivered timeline note
		signed_by serial enable_at applied_at activation hooks text jobs lpactl lpad kernel system missing check verdict findings`)
	identifiers = words("eid iccid imei imsi previous aid")
)

func words(s string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(s) {
		set[w] = true
	}
	return set
}

// redacted is a document as it may be told: of objects the members of [kept],
// of texts what [scrubbed] leaves.
func redacted(v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.UseNumber() // no figure is rounded
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err = e.Encode(prune(tree))
	return b.Bytes(), err
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, one := range v {
			if text, ok := one.(string); ok && identifiers[name] {
				out[name] = redact.Digits(text)
			} else if kept[name] {
				out[name] = prune(one)
			}
		}
		return out
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		return v
	case string:
		return scrubbed(v)
	case json.Number:
		if longDigits.MatchString(v.String()) {
			return redact.Digits(v.String())
		}
	}
	return v
}
