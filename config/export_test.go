package config

// ParseForTest is Load of one document without a file system.
func ParseForTest(text []byte) (Config, error) {
	var faults problems
	s := newSchema()
	values, keys := parse(s, "test", text, &faults)
	if err := faults.err(); err != nil {
		return Config{}, err
	}
	cfg, origins, err := merge(s, []layer{{"test", values, keys}})
	if err != nil {
		return Config{}, err
	}
	return cfg, cfg.validate(origins)
}
