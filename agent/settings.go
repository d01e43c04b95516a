package agent

import (
	"encoding/json"
	"log/slog"

	"lpad/agent/rsp"
	"lpad/agent/switchover"
	"lpad/config"
)

// settingsSource is a placeholder until agent/params lands in this session.
type settingsSource struct {
	cfg config.Params
	log *slog.Logger
}

func (s *settingsSource) Candidates(document json.RawMessage, p rsp.Profile) ([]switchover.Candidate, error) {
	return nil, nil
}

func (s *settingsSource) CheckDocument(document json.RawMessage) error { return nil }
