//go:build unix && race

package hostile

func init() { raceDetector = true }
