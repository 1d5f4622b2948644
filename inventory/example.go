package inventory

import (
	_ "embed"
	"slices"
)

//go:embed example.yaml
var example []byte

// Example is a commented inventory to begin with: valid, and without a warning.
func Example() []byte { return slices.Clone(example) }
