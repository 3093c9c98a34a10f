package manifest

import (
	"errors"
	"testing"
)

func TestParseDraft(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"neither", `{"name":"example.com/a"}`, `example.com/a`},
		{"blanks around", " {\"name\":\"example.com/a\"}\n ", `example.com/a`},
		{"kind only", `{"acKind":"ImageManifest","name":"example.com/a"}`, `example.com/a`},
		{"both", `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a"}`, `example.com/a`},
		{"empty", `{}`, ""},
		{"another kind", `{"acKind":"PodManifest","name":"example.com/a"}`, ""},
		{"a list", `[]`, ""},
		{"null", `null`, ""},
		{"two documents", `{"name":"example.com/a"}{}`, ""},
		{"a key twice", `{"name":"example.com/a","name":"example.com/b"}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, _, err := ParseDraft([]byte(tt.in))
			if tt.want == "" {
				if !errors.Is(err, ErrInvalid) {
					t.Fatalf("%+v, %v", m, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Name) != tt.want || m.ACKind != "ImageManifest" || m.ACVersion.Empty() {
				t.Errorf("%+v", m)
			}
		})
	}
}
