package config

import "fmt"

// find looks a key up. Errors: ErrUnknownKey, with the key that was likely meant.
func find(keys []Key, name string) (Key, error) {
	var nearest string
	least := 1 + len(name)/3 // more would be guessing
	for _, k := range keys {
		if k.Name == name {
			return k, nil
		}
		if d := distance(name, k.Name); d <= least {
			nearest, least = k.Name, d-1
		}
	}
	if nearest != "" {
		return Key{}, fmt.Errorf("%w %q; did you mean %q?", ErrUnknownKey, name, nearest)
	}
	return Key{}, fmt.Errorf("%w %q; for the list run: jetpack config", ErrUnknownKey, name)
}

// distance is the Levenshtein distance of two strings, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
