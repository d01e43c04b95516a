package params

import (
	"fmt"
	"slices"
)

// tlvWriter puts the form together and keeps the first error.
type tlvWriter struct {
	out []byte
	err error
}

func (w *tlvWriter) fail(pointer, format string, a ...any) {
	if w.err == nil {
		w.err = refuse(pointer, format, a...)
	}
}

func (w *tlvWriter) put(tag byte, v ...byte) {
	w.out = append(append(w.out, tag, byte(len(v))), v...)
}

// text writes a text of limited length.
func (w *tlvWriter) text(pointer string, tag byte, s string, most int) {
	if len(s) > most {
		w.fail(pointer, "has %d bytes, the TLV form carries %d", len(s), most)
		return
	}
	w.put(tag, []byte(s)...)
}

// carry writes a member if it is set. Null cannot be carried: in this form an
// element is there, or there is no opinion.
func carry[T any](w *tlvWriter, pointer string, o Opt[T], write func(T)) {
	switch o.State {
	case Set:
		write(o.Value)
	case Null:
		w.fail(pointer, "is null, which the TLV form cannot carry")
	}
}

// never refuses a member for which the form has no element.
func never[T any](w *tlvWriter, pointer string, o Opt[T]) {
	if o.State != Absent {
		w.fail(pointer, "cannot be carried in the TLV form; leave it out, or send it in a document")
	}
}

// MarshalTLV is the reference encoder of the BER-TLV form: the E1 that
// [ParseTLV] reads. The error is a [*DocumentError] with a pointer to the
// first member that the form cannot carry, as nothing is left out silently.
func MarshalTLV(d *Document) ([]byte, error) {
	w := &tlvWriter{}
	w.version(d)
	carry(w, "/apns", d.APNs, w.apns)
	w.radio(d)
	carry(w, "/sms/smsc", d.SMSC, func(s string) { w.smsc("/sms/smsc", s) })
	carry(w, "/servers/ecs", d.ECS, func(s string) { w.text("/servers/ecs", tagECS, s, maxTLVHost) })
	carry(w, "/servers/cmp", d.CMP, func(s string) { w.text("/servers/cmp", tagCMP, s, maxTLVHost) })
	never(w, "/servers/smds", d.SMDS)
	never(w, "/servers/bootstrap", d.Bootstrap)
	never(w, "/connectivity/checks", d.Checks)
	never(w, "/connectivity/retry", d.Retry)
	if d.Limits != nil {
		w.fail("/limits", "cannot be carried: limits are for the device's maker to set")
	}
	for _, pointer := range d.Ignored {
		w.fail(pointer, "is not known")
	}
	if len(w.out) > maxTLV {
		w.fail("", "has %d bytes in the TLV form, %d are allowed: what is more belongs into a server's document", len(w.out), maxTLV)
	}
	if w.err != nil {
		return nil, w.err
	}
	return append([]byte{tagParameters, byte(len(w.out))}, w.out...), nil
}

func (w *tlvWriter) version(d *Document) {
	if !d.Scope.IsZero() {
		w.fail("/scope", "cannot be carried: the TLV form is for the profile in which it is")
	}
	if d.Generation < 0 || d.Generation > maxTLVGeneration {
		w.fail("/generation", "is %d, the TLV form carries up to %d", d.Generation, maxTLVGeneration)
	}
	flags := byte(0)
	flag := func(pointer string, o Opt[bool], carried bool, bit byte) {
		carry(w, pointer, o, func(v bool) {
			if v != carried {
				w.fail(pointer, "is %v; the TLV form carries only %v, or no opinion", v, carried)
			}
			flags |= bit
		})
	}
	flag("/roaming/data", d.DataRoaming, false, flagNoRoaming)
	flag("/roaming/homeOnly", d.HomeOnly, true, flagHomeOnly)
	never(w, "/roaming/preferredPlmns", d.PreferredPLMNs)
	w.put(tagVersion, Version<<4|flags, byte(d.Generation>>8), byte(d.Generation))
}

func (w *tlvWriter) apns(list []APN) {
	if len(list) == 0 {
		w.fail("/apns", "is empty, which the TLV form cannot carry; leave it out")
	}
	if len(list) > maxTLVAPNs {
		w.fail("/apns", "has %d entries, the TLV form carries %d", len(list), maxTLVAPNs)
	}
	for i, a := range list {
		entry := &tlvWriter{}
		entry.apn(fmt.Sprintf("/apns/%d", i), a)
		if w.err == nil {
			w.err = entry.err
		}
		if len(entry.out) > maxTLV {
			w.fail(fmt.Sprintf("/apns/%d", i), "has %d bytes in the TLV form, %d are allowed for all", len(entry.out), maxTLV)
			return
		}
		w.put(tagAPN, entry.out...)
	}
}

func (w *tlvWriter) apn(at string, a APN) {
	w.text(at+"/name", tagName, a.Name, maxTLVName)
	w.purposes(at+"/purposes", a.Purposes)
	w.pdnType(at, a)
	switch auth := slices.Index(authNumbers, a.Auth); {
	case a.Auth == "" && (a.User != "" || !a.Secret.IsZero()):
		w.fail(at+"/auth", "is missing; with a user or password the TLV form has to say it")
	case auth < 0 && a.Auth != "":
		w.fail(at+"/auth", "is not known")
	case auth >= 0 && auth != authNone:
		w.put(tagAuth, byte(auth))
	}
	if a.User != "" {
		w.text(at+"/user", tagUser, a.User, maxTLVCredential)
	}
	if !a.Secret.IsZero() {
		w.text(at+"/secret", tagSecret, a.Secret.Reveal(), maxTLVCredential)
	}
	if a.SecretRef != "" {
		w.fail(at+"/secretRef", "cannot be carried in the TLV form: the operator does not know the device's files")
	}
	if a.MTU > 0 {
		w.put(tagMTU, byte(a.MTU>>8), byte(a.MTU))
	}
	for _, ip := range a.DNS {
		w.put(tagDNS, ip.AsSlice()...)
	}
	if len(a.Routes) > 0 {
		w.fail(at+"/routes", "cannot be carried in the TLV form; leave them out, or send them in a document")
	}
}

func (w *tlvWriter) purposes(pointer string, list []Purpose) {
	mask := byte(0)
	for _, p := range list {
		bit := slices.Index(bitPurposes, p)
		switch {
		case p == PurposeFOTA:
			w.fail(pointer, "names fota, for which the TLV form has no bit: write dm, which stands for both there")
		case bit < 0:
			w.fail(pointer, "names %s, for which the TLV form has no bit", p)
		default:
			mask |= 1 << bit
		}
	}
	if mask == 0 {
		w.fail(pointer, "names none")
	}
	w.put(tagPurposes, mask)
}

func (w *tlvWriter) pdnType(at string, a APN) {
	if a.PDNType == "" {
		if a.PDNTypeRoaming != "" {
			w.fail(at+"/pdnTypeRoaming", "cannot be carried without a pdnType")
		}
		return
	}
	number := func(member, name string) byte {
		n := slices.Index(pdnNumbers, name)
		if n < 0 {
			w.fail(at+member, "is not known")
		}
		return byte(n) & 0xF
	}
	types := number("/pdnType", a.PDNType)<<4 | asHome
	if a.PDNTypeRoaming != "" {
		types &= 0xF0 | number("/pdnTypeRoaming", a.PDNTypeRoaming)
	}
	w.put(tagPDNType, types)
}

func (w *tlvWriter) radio(d *Document) {
	carry(w, "/radio/rats", d.RATs, func(list []string) {
		mask := byte(0)
		for _, name := range list {
			if bit := slices.Index(rats, name); bit >= 0 {
				mask |= 1 << bit
			}
		}
		if mask == 0 {
			w.fail("/radio/rats", "names none")
		}
		w.put(tagRATs, mask)
	})
	carry(w, "/radio/lteBands", d.LTEBands, w.bands)
	carry(w, "/radio/edrx/lte", d.EDRXLTE, func(e EDRX) { w.edrx("/radio/edrx/lte", actLTE, e) })
	if d.EDRXLTE.State == Set && d.EDRXNBIoT.State == Set {
		w.fail("/radio/edrx/nb-iot", "cannot be carried beside that for lte: the TLV form has one")
	}
	carry(w, "/radio/edrx/nb-iot", d.EDRXNBIoT, func(e EDRX) { w.edrx("/radio/edrx/nb-iot", actNBIoT, e) })
	switch p := d.PSM.Value; d.PSM.State {
	case Null:
		w.put(tagPSM, timerOff, timerOff)
	case Set:
		w.put(tagPSM, w.timer("/radio/psm/tauSeconds", p.TAUSeconds, timer3), w.timer("/radio/psm/activeSeconds", p.ActiveSeconds, timer2))
	}
}

func (w *tlvWriter) bands(list []int) {
	var mask [maxTLVBands]byte
	length := 0
	for i, band := range list {
		at := (band - 1) / 8
		if band < 1 || at >= maxTLVBands {
			w.fail(fmt.Sprintf("/radio/lteBands/%d", i), "is %d, the TLV form carries bands up to %d", band, 8*maxTLVBands)
			return
		}
		mask[maxTLVBands-1-at] |= 1 << ((band - 1) % 8)
		length = max(length, at+1)
	}
	w.put(tagBands, mask[maxTLVBands-length:]...)
}

func (w *tlvWriter) edrx(pointer string, act byte, e EDRX) {
	if e.PTW == nil {
		w.fail(pointer+"/ptw", "is missing; the TLV form has to say it")
		return
	}
	w.put(tagEDRX, act, byte(*e.PTW)<<4|byte(e.Value)&0xF)
}

// timer writes a time exactly, in the largest unit that does.
func (w *tlvWriter) timer(pointer string, seconds int64, units [unitOff]int64) byte {
	best, found := byte(0), false
	for i, unit := range units {
		// of two equal units the first: the others are reserved
		if seconds%unit == 0 && seconds/unit <= timerValue && (!found || unit > units[best>>5]) {
			best, found = byte(i)<<5|byte(seconds/unit), true
		}
	}
	if seconds == 0 {
		return 0
	}
	if !found {
		w.fail(pointer, "is %d s, which a timer of the network cannot say: it counts up to %d of one unit", seconds, timerValue)
	}
	return best
}

func (w *tlvWriter) smsc(pointer, number string) {
	if !isNumber(number) {
		w.fail(pointer, "is not a telephone number")
		return
	}
	out := []byte{toaPlain}
	if number[0] == '+' {
		out[0], number = toaPlus, number[1:]
	}
	for i := range len(number) {
		if i%2 == 0 {
			out = append(out, 0xF0|(number[i]-'0'))
		} else {
			out[len(out)-1] = out[len(out)-1]&0x0F | (number[i]-'0')<<4
		}
	}
	w.put(tagSMSC, out...)
}
