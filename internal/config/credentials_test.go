package config

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCredentials(t *testing.T) {
	const secret = "hunter2"
	tests := []struct {
		name string
		file string
		want map[string]Credential // nil for an error
		err  string                // FILE stands for the file's name
	}{
		{"none", "", map[string]Credential{}, ""},
		{"password", "[\"images.example.com\"]\nusername = \"me\"\npassword = \"hunter2\"\n",
			map[string]Credential{"images.example.com": {Username: "me", Password: secret}}, ""},
		{"token, for a port", "[\"images.example.com:8443\"]\ntoken = \"hunter2\"\n",
			map[string]Credential{"images.example.com:8443": {Token: secret}}, ""},
		{"two hosts", "[a]\ntoken = \"hunter2\"\n[b]\nusername = \"me\"\n",
			map[string]Credential{"a": {Token: secret}, "b": {Username: "me"}}, ""},
		{"both", "[a]\nusername = \"me\"\ntoken = \"hunter2\"\n", nil, "FILE: a: want username and password, or token"},
		{"password beside a token", "[a]\npassword = \"hunter2\"\ntoken = \"hunter2\"\n", nil, "FILE: a: want username and password, or token"},
		{"password alone", "[a]\npassword = \"hunter2\"\n", nil, "FILE: a: want username and password, or token"},
		{"empty table", "[a]\n", nil, "FILE: a: want username and password, or token"},
		{"unknown key", "[a]\ntokn = \"hunter2\"\n", nil, "FILE: want tables such as"},
		{"host without quotes", "[images.example.com]\ntoken = \"hunter2\"\n", nil, "FILE: want tables such as"},
		{"not in a table", "token = \"hunter2\"\n", nil, "FILE: want tables such as"},
		{"number", "[a]\ntoken = 1\n", nil, "FILE: want tables such as"},
		{"syntax", "[a]\ntoken = hunter2\n", nil, "FILE: want tables such as"},
		{"no end", "[a]\ntoken = \"hunter2\n", nil, "FILE: want tables such as"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, tt.file)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Credentials(path)
			if tt.want != nil {
				if err != nil || !maps.Equal(got, tt.want) {
					t.Fatalf("got %+v, %v, want %+v", got, err, tt.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("no error, but %+v", got)
			}
			text := strings.ReplaceAll(err.Error(), path, "FILE")
			if !strings.HasPrefix(text, "credentials: "+tt.err) {
				t.Errorf("got  %s\nwant credentials: %s", text, tt.err)
			}
			if strings.Contains(text, secret) || strings.Contains(text, "\n") {
				t.Errorf("error shows the secret, or is not one line: %q", text)
			}
		})
	}
}

func TestCredentialsMode(t *testing.T) {
	for mode, mend := range map[fs.FileMode]string{
		0o600: "", 0o400: "", 0o640: "chmod go-r ", 0o604: "chmod go-r ", 0o644: "chmod go-r ", 0o622: "chmod go-w ",
	} {
		t.Run(mode.String(), func(t *testing.T) {
			path := writeFile(t, "[a]\ntoken = \"t\"\n")
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := Credentials(path)
			if (err == nil) != (mend == "") || err != nil && !strings.Contains(err.Error(), mend+path) {
				t.Errorf("error %v, want one with %q", err, mend)
			}
		})
	}
	if _, err := Credentials(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file was taken for an empty one")
	}
}
