package modemtest

import (
	"fmt"

	"github.com/godbus/dbus/v5"
)

// subject is polkit's (sa{sv}): who asks.
type subject struct {
	Kind    string
	Details map[string]dbus.Variant
}

// authorization is polkit's (bba{ss}): the answer.
type authorization struct {
	Authorized, Challenge bool
	Details               map[string]string
}

// servePolkit puts an authority on the bus that says yes to every action:
// ModemManager and NetworkManager refuse every call without one. It lives as
// long as the connection.
func servePolkit(conn *dbus.Conn) error {
	const (
		path  = "/org/freedesktop/PolicyKit1/Authority"
		iface = "org.freedesktop.PolicyKit1.Authority"
	)
	properties := map[string]dbus.Variant{
		"BackendName": dbus.MakeVariant("modemtest"), "BackendVersion": dbus.MakeVariant("1"), "BackendFeatures": dbus.MakeVariant(uint32(0)),
	}
	authority := map[string]any{
		"CheckAuthorization": func(subject, string, map[string]string, uint32, string) (authorization, *dbus.Error) {
			return authorization{Authorized: true, Details: map[string]string{}}, nil
		},
		"CancelCheckAuthorization": func(string) *dbus.Error { return nil },
	}
	if err := conn.ExportMethodTable(authority, path, iface); err != nil {
		return fmt.Errorf("polkit stand-in: %w", err)
	}
	props := map[string]any{
		"Get": func(_, name string) (dbus.Variant, *dbus.Error) {
			v, found := properties[name]
			if !found {
				return v, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{name})
			}
			return v, nil
		},
		"GetAll": func(string) (map[string]dbus.Variant, *dbus.Error) { return properties, nil },
	}
	if err := conn.ExportMethodTable(props, path, "org.freedesktop.DBus.Properties"); err != nil {
		return fmt.Errorf("polkit stand-in: %w", err)
	}
	got, err := conn.RequestName("org.freedesktop.PolicyKit1", dbus.NameFlagDoNotQueue)
	if err != nil || got != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("polkit stand-in: own the name: %v %w", got, err)
	}
	return nil
}
