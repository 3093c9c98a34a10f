package config

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Credential is what a server asks for: a name and a password, or a token.
type Credential struct {
	Username string `toml:"username"`
	Password string `toml:"password"`
	Token    string `toml:"token"`
}

// Credentials reads a file as the key fetch.credentials-file describes it: by host, or
// by host and port.
func Credentials(path string) (map[string]Credential, error) {
	data, mode, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if mode&0o044 != 0 {
		return nil, fmt.Errorf("credentials: others can read %s; run: chmod go-r %[1]s", path)
	}
	hosts := map[string]Credential{}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&hosts); err != nil {
		// What the library says may quote a password.
		return nil, fmt.Errorf("credentials: %s: want tables such as [\"images.example.com\"], with username and password, or token", path)
	}
	for host, c := range hosts {
		if (c.Token == "") == (c.Username == "") || c.Token != "" && c.Password != "" {
			return nil, fmt.Errorf("credentials: %s: %s: want username and password, or token", path, host)
		}
	}
	return hosts, nil
}
