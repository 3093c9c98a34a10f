package config

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// set parses text as the key's type and stores it in c.
func (k Key) set(c *Config, text string) (err error) {
	switch p := k.field(c).(type) {
	case *string:
		*p, err = k.parseText(text)
	case *time.Duration:
		*p, err = parseDuration(text)
	case *int64:
		if k.Type == Size {
			*p, err = parseSize(text)
		} else {
			*p, err = parseInteger(text, k.Max)
		}
	default:
		panic("config: field of " + k.Name + " has an unknown type")
	}
	return err
}

// get writes the value in c in the form that set parses.
func (k Key) get(c *Config) string {
	switch p := k.field(c).(type) {
	case *string:
		return *p
	case *time.Duration:
		return p.String()
	case *int64:
		if k.Type == Size {
			return formatSize(*p)
		}
		return strconv.FormatInt(*p, 10)
	default:
		panic("config: field of " + k.Name + " has an unknown type")
	}
}

func (k Key) parseText(text string) (string, error) {
	if text == "" {
		return "", errors.New("is empty")
	}
	// Values are printed one a line and become arguments and file names.
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", errors.New("contains a control character")
	}
	switch k.Type {
	case Choice:
		if !slices.Contains(k.Choices, text) {
			return "", fmt.Errorf("is not one of %s", strings.Join(k.Choices, ", "))
		}
	case Path:
		if !filepath.IsAbs(text) {
			return "", errors.New("is not an absolute path")
		}
		return filepath.Clean(text), nil
	}
	return text, nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errors.New(`is not a duration such as "10s" or "1m30s"`)
	}
	return d, nil
}

func parseInteger(text string, greatest int64) (int64, error) {
	if greatest == 0 {
		greatest = math.MaxInt64
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 || int64(n) > greatest {
		return 0, fmt.Errorf("is not a whole number from 1 to %d", greatest)
	}
	return int64(n), nil
}

// sizeSuffixes stand for the powers of 1024, from the first on.
const sizeSuffixes = "KMGT"

func parseSize(text string) (int64, error) {
	digits, shift := text, 0
	if i := len(text) - 1; i > 0 {
		if power := strings.IndexByte(sizeSuffixes, text[i]&^0x20); power >= 0 {
			digits, shift = text[:i], 10*(power+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63-shift)
	if err != nil || n == 0 {
		return 0, errors.New(`is not a size such as 1048576, "512M" or "64G"`)
	}
	return int64(n) << shift, nil
}

// formatSize uses the largest suffix that leaves a whole number.
func formatSize(n int64) string {
	suffix := ""
	for i := 0; i < len(sizeSuffixes) && n != 0 && n%1024 == 0; i++ {
		n, suffix = n/1024, sizeSuffixes[i:i+1]
	}
	return strconv.FormatInt(n, 10) + suffix
}

// fromTOML turns a decoded TOML value into the text that set parses. The types
// of TOML are not mixed: a number in quotes is no Integer.
func (k Key) fromTOML(v any) (string, error) {
	switch v := v.(type) {
	case string:
		if k.Type != Integer {
			return v, nil
		}
	case int64:
		if k.Type == Integer || k.Type == Size {
			return strconv.FormatInt(v, 10), nil
		}
	}
	if k.Type == Integer {
		return "", errors.New("takes a number, without quotes")
	}
	return "", fmt.Errorf("takes a %s in quotes", k.Type)
}
