package repository

import "github.com/jetpack-run/jetpack/internal/failpoint"

// SetPoints makes a repository ask p at every step.
func (r *Repository) SetPoints(p failpoint.Points) { r.points = p }
