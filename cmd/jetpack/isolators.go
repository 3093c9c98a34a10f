package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/jetpack-run/jetpack/internal/sandbox"
)

// report tells the user what becomes of the isolators of a pod.
func (c *cli) report(outcomes []sandbox.Outcome) {
	rows := make([]row, len(outcomes))
	level := "info"
	for i, o := range outcomes {
		rows[i] = row{cells: []string{orDash(o.App), o.Isolator, printable(shortened(o.Value)), string(o.Status), printable(o.Detail)}}
		if o.Status != sandbox.Enforced {
			level = "warn"
		}
	}
	var table bytes.Buffer
	_ = printTable(&table, []string{"APP", "ISOLATOR", "VALUE", "STATUS", "DETAIL"}, rows) // a buffer takes it all
	for line := range strings.Lines(table.String()) {
		c.log(level, strings.TrimRight(line, " \n"))
	}
}

// shortened is what of a value has room in a table.
func shortened(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%.37s...", s)
	}
	return s
}
