package fetch

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/jetpack-run/jetpack/discovery"
	"github.com/jetpack-run/jetpack/internal/httpclient"
)

// Something is absent only when everything says so.
func TestNowhere(t *testing.T) {
	gone := &httpclient.StatusError{URL: "https://a", Status: http.StatusNotFound}
	broken := &httpclient.StatusError{URL: "https://b", Status: http.StatusBadGateway}
	failed := errors.New("connection refused")
	for _, tt := range []struct {
		name   string
		tried  []error
		found  error
		absent bool
	}{
		{"no endpoint", nil, discovery.ErrNotFound, true},
		{"none has it", []error{gone, gone}, nil, true},
		{"nor do the pages know another", []error{gone}, discovery.ErrNotFound, true},
		{"one is broken", []error{gone, broken}, nil, false},
		{"one is broken, and the pages know no other", []error{broken}, discovery.ErrNotFound, false},
		{"one cannot be reached", []error{failed, gone}, discovery.ErrNotFound, false},
		{"discovery failed", []error{gone}, failed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := nowhere(tt.tried, tt.found)
			if err == nil || errors.Is(err, discovery.ErrNotFound) != tt.absent {
				t.Errorf("absent should be %v: %v", tt.absent, err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("several lines: %q", err)
			}
		})
	}
}
