package platform

import "testing"

func TestLacks(t *testing.T) {
	for version, want := range map[string]bool{
		"runc version 1.1.5+ds1": true,
		"runc version 1.2.7":     true,
		"runc version 1.2.8":     false,
		"runc version 1.4.0":     false,
		"crun version 1.8.1":     false,
		"":                       false,
	} {
		if got := len(Lacks(t.Context(), nil, version)) > 0; got != want {
			t.Errorf("Lacks(nil, %q) warns: %v", version, got)
		}
	}
}
