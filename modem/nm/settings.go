package nm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// Bounds of settings that were written down, which may come from a damaged or
// foreign file.
const (
	maxSettingsBytes = 1 << 20
	maxSettingsDepth = 16
)

// Settings are the settings of one connection, as NetworkManager has them on
// the bus (a{sa{sv}}): setting name, property name, typed value.
//
// They are marshalled to JSON with the D-Bus type of each value, members
// sorted, so that equal settings are equal bytes and come back with exactly the
// types they had:
//
//	{"gsm":{"apn":{"s":"internet"},"mtu":{"u":1400}},"ipv4":{"address-data":{"aa{sv}":[]}}}
//
// Bytes (ay) are base64, 64-bit numbers are strings of digits, variants inside
// are again {"type":value}. They may hold passwords: never log them.
type Settings map[string]map[string]dbus.Variant

// Clone copies the settings two levels deep; values are never changed in place.
func (s Settings) Clone() Settings {
	out := make(Settings, len(s))
	for name, properties := range s {
		out[name] = maps.Clone(properties)
	}
	return out
}

// Text returns a string property, empty if it is not there.
func (s Settings) Text(setting, property string) string {
	v, ok := s[setting][property].Value().(string)
	if !ok {
		return ""
	}
	return v
}

// Autoconnect tells whether NetworkManager may activate the connection by
// itself; it may if nothing is said.
func (s Settings) Autoconnect() bool {
	v, ok := s["connection"]["autoconnect"].Value().(bool)
	return !ok || v
}

// with returns a copy with one property set, or removed if the value is nil.
func (s Settings) with(setting, property string, value any) Settings {
	out := s.Clone()
	if out[setting] == nil {
		out[setting] = map[string]dbus.Variant{}
	}
	if value == nil {
		delete(out[setting], property)
	} else {
		out[setting][property] = dbus.MakeVariant(value)
	}
	return out
}

// Equal compares settings by value. The time of the last activation, which
// NetworkManager adds when it is asked and keeps elsewhere, does not count.
func (s Settings) Equal(other Settings) bool {
	a, errA := json.Marshal(s.with("connection", timestamp, nil))
	b, errB := json.Marshal(other.with("connection", timestamp, nil))
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

const timestamp = "timestamp"

// retyped gives values the Go types by which they can be sent: godbus decodes a
// struct as []any, which it would encode as an array of variants.
func (s Settings) retyped() (Settings, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var out Settings
	err = json.Unmarshal(b, &out)
	return out, err
}

// MarshalJSON writes the settings as described at the type.
func (s Settings) MarshalJSON() ([]byte, error) {
	out := make(map[string]map[string]map[string]any, len(s))
	for name, properties := range s {
		out[name] = make(map[string]map[string]any, len(properties))
		for property, v := range properties {
			value, err := plain(v.Signature().String(), reflect.ValueOf(v.Value()), 0)
			if err != nil {
				return nil, fmt.Errorf("setting %s.%s: %w", name, property, err)
			}
			out[name][property] = map[string]any{v.Signature().String(): value}
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote, and refuses anything else.
func (s *Settings) UnmarshalJSON(b []byte) error {
	if len(b) > maxSettingsBytes {
		return fmt.Errorf("settings of %d bytes, at most %d", len(b), maxSettingsBytes)
	}
	var in map[string]map[string]map[string]json.RawMessage
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	out := make(Settings, len(in))
	for name, properties := range in {
		out[name] = make(map[string]dbus.Variant, len(properties))
		for property, typed := range properties {
			v, err := variantOf(typed, 0)
			if err != nil {
				return fmt.Errorf("setting %s.%s: %w", name, property, err)
			}
			out[name][property] = v
		}
	}
	*s = out
	return nil
}

var (
	errDepth = errors.New("nested too deep")
	errType  = errors.New("value does not fit its type")
)

// plain makes a JSON value of a D-Bus value as godbus decodes it: a struct is
// a []any, a variant a dbus.Variant, the rest what one would think.
func plain(sig string, v reflect.Value, depth int) (any, error) {
	if depth > maxSettingsDepth {
		return nil, errDepth
	}
	if !v.IsValid() || sig == "" {
		return nil, errType
	}
	switch sig[0] {
	case 'v':
		inner, ok := v.Interface().(dbus.Variant)
		if !ok {
			return nil, errType
		}
		value, err := plain(inner.Signature().String(), reflect.ValueOf(inner.Value()), depth+1)
		return map[string]any{inner.Signature().String(): value}, err
	case 'x', 't': // JSON numbers are doubles to most readers
		return fmt.Sprint(v.Interface()), nil
	case 'd': // NaN and infinity have no JSON number
		return strconv.FormatFloat(v.Float(), 'g', -1, 64), nil
	case 's', 'o':
		return v.String(), nil
	case 'y', 'n', 'q', 'i', 'u', 'b':
		return v.Interface(), nil
	case 'g', 'h':
		return nil, fmt.Errorf("type %q is in no setting", sig)
	case 'a':
		return plainArray(sig[1:], v, depth)
	case '(':
		types := split(sig[1 : len(sig)-1])
		out := make([]any, len(types))
		for i := range out {
			field, ok := fieldOf(v, i, len(types))
			if !ok {
				return nil, errType
			}
			value, err := plain(types[i], field, depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = value
		}
		return out, nil
	}
	return nil, fmt.Errorf("unknown type %q", sig)
}

// fieldOf is one of n fields of a struct: a []any when godbus has decoded it, a
// real struct when it comes from our JSON.
func fieldOf(v reflect.Value, i, n int) (reflect.Value, bool) {
	switch {
	case v.Kind() == reflect.Struct && v.NumField() == n:
		return v.Field(i), true
	case v.Kind() == reflect.Slice && v.Len() == n:
		return v.Index(i).Elem(), v.Index(i).Kind() == reflect.Interface
	}
	return reflect.Value{}, false
}

func plainArray(sig string, v reflect.Value, depth int) (any, error) {
	if sig == "y" {
		b, ok := v.Interface().([]byte)
		if !ok {
			return nil, errType
		}
		return append([]byte{}, b...), nil // never null
	}
	if sig[0] == '{' {
		if v.Kind() != reflect.Map || sig[1] != 's' {
			return nil, fmt.Errorf("dictionary of type %q: %w", sig, errType)
		}
		out := make(map[string]any, v.Len())
		for _, key := range v.MapKeys() {
			value, err := plain(sig[2:len(sig)-1], v.MapIndex(key), depth+1)
			if err != nil {
				return nil, err
			}
			out[key.String()] = value
		}
		return out, nil
	}
	if v.Kind() != reflect.Slice {
		return nil, errType
	}
	out := make([]any, v.Len())
	for i := range out {
		value, err := plain(sig, v.Index(i), depth+1)
		if err != nil {
			return nil, err
		}
		out[i] = value
	}
	return out, nil
}

// variantOf reads {"type":value}.
func variantOf(typed map[string]json.RawMessage, depth int) (dbus.Variant, error) {
	if len(typed) != 1 {
		return dbus.Variant{}, fmt.Errorf("%d types for one value", len(typed))
	}
	for sig, raw := range typed {
		parsed, err := dbus.ParseSignature(sig)
		if err != nil {
			return dbus.Variant{}, err
		}
		if types := split(sig); len(types) != 1 {
			return dbus.Variant{}, fmt.Errorf("type %q is not one type", sig)
		}
		v, err := typedValue(sig, raw, depth)
		if err != nil {
			return dbus.Variant{}, fmt.Errorf("value of type %q: %w", sig, err)
		}
		return dbus.MakeVariantWithSignature(v.Interface(), parsed), nil
	}
	return dbus.Variant{}, errType
}

// typeOf is the Go type of values of a D-Bus type. Structs become []any when
// godbus decodes them, but it encodes only real structs, so those are made.
func typeOf(sig string, depth int) (reflect.Type, error) {
	if depth > maxSettingsDepth || sig == "" {
		return nil, errDepth
	}
	if t, ok := basicTypes[sig[0]]; ok {
		return t, nil
	}
	switch {
	case sig[0] == 'a' && len(sig) > 3 && sig[1] == '{' && sig[2] == 's':
		t, err := typeOf(sig[3:len(sig)-1], depth+1)
		if err != nil {
			return nil, err
		}
		return reflect.MapOf(basicTypes['s'], t), nil
	case sig[0] == 'a' && len(sig) > 1:
		t, err := typeOf(sig[1:], depth+1)
		if err != nil {
			return nil, err
		}
		return reflect.SliceOf(t), nil
	case sig[0] == '(' && len(sig) > 2:
		return structType(split(sig[1:len(sig)-1]), depth)
	}
	return nil, fmt.Errorf("type %q is in no setting", sig)
}

func structType(types []string, depth int) (reflect.Type, error) {
	fields := make([]reflect.StructField, len(types))
	for i, sig := range types {
		t, err := typeOf(sig, depth+1)
		if err != nil {
			return nil, err
		}
		fields[i] = reflect.StructField{Name: "F" + strconv.Itoa(i), Type: t}
	}
	return reflect.StructOf(fields), nil
}

var basicTypes = map[byte]reflect.Type{
	'y': reflect.TypeFor[byte](), 'b': reflect.TypeFor[bool](), 'n': reflect.TypeFor[int16](), 'q': reflect.TypeFor[uint16](),
	'i': reflect.TypeFor[int32](), 'u': reflect.TypeFor[uint32](), 'x': reflect.TypeFor[int64](), 't': reflect.TypeFor[uint64](),
	'd': reflect.TypeFor[float64](), 's': reflect.TypeFor[string](), 'o': reflect.TypeFor[dbus.ObjectPath](), 'v': reflect.TypeFor[dbus.Variant](),
}

func typedValue(sig string, raw json.RawMessage, depth int) (reflect.Value, error) {
	t, err := typeOf(sig, depth)
	if err != nil {
		return reflect.Value{}, err
	}
	v := reflect.New(t).Elem()
	return v, fill(v, sig, raw, depth)
}

// fill reads a JSON value into v, which has the Go type of sig.
func fill(v reflect.Value, sig string, raw json.RawMessage, depth int) error {
	if depth > maxSettingsDepth {
		return errDepth
	}
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return errType
	}
	switch {
	case sig == "v":
		var typed map[string]json.RawMessage
		if err := json.Unmarshal(raw, &typed); err != nil {
			return err
		}
		inner, err := variantOf(typed, depth+1)
		v.Set(reflect.ValueOf(inner))
		return err
	case sig == "x" || sig == "t" || sig == "d":
		return fillNumber(v, raw)
	case sig == "o":
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		if !dbus.ObjectPath(s).IsValid() {
			return errType
		}
		v.SetString(s)
		return nil
	case sig[0] == '(':
		return fillStruct(v, split(sig[1:len(sig)-1]), raw, depth)
	case sig[0] == 'a' && sig != "ay" && sig[1] == '{':
		var in map[string]json.RawMessage
		if err := json.Unmarshal(raw, &in); err != nil {
			return err
		}
		v.Set(reflect.MakeMapWithSize(v.Type(), len(in)))
		for key, value := range in {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := fill(e, sig[3:len(sig)-1], value, depth+1); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key), e)
		}
		return nil
	case sig[0] == 'a' && sig != "ay":
		var in []json.RawMessage
		if err := json.Unmarshal(raw, &in); err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(v.Type(), len(in), len(in)))
		for i, value := range in {
			if err := fill(v.Index(i), sig[1:], value, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return json.Unmarshal(raw, v.Addr().Interface())
}

func fillStruct(v reflect.Value, types []string, raw json.RawMessage, depth int) error {
	var in []json.RawMessage
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	if len(in) != len(types) {
		return errType
	}
	for i, value := range in {
		if err := fill(v.Field(i), types[i], value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func fillNumber(v reflect.Value, raw json.RawMessage) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	var err error
	switch v.Kind() {
	case reflect.Int64:
		var n int64
		n, err = strconv.ParseInt(s, 10, 64)
		v.SetInt(n)
	case reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(s, 10, 64)
		v.SetUint(n)
	default:
		var n float64
		n, err = strconv.ParseFloat(s, 64)
		if math.IsInf(n, 0) && err != nil {
			return errType
		}
		v.SetFloat(n)
	}
	return err
}

// split cuts a signature into its single types. What is no signature comes
// back as one piece too many or too few, which callers refuse.
func split(sig string) []string {
	var out []string
	for len(sig) > 0 {
		n := 0
		for n < len(sig) && sig[n] == 'a' {
			n++
		}
		depth := 0
		for ; n < len(sig); n++ {
			switch sig[n] {
			case '(', '{':
				depth++
			case ')', '}':
				depth--
			}
			if depth <= 0 {
				n++
				break
			}
		}
		n = min(n, len(sig))
		out, sig = append(out, sig[:n]), sig[n:]
	}
	return out
}
