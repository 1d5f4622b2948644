package inventory

import (
	"os"
	"testing"
)

func TestManyErrorsAreToldAtOnce(t *testing.T) {
	data, err := os.ReadFile("testdata/many-errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, err := Parse("many-errors.yaml", data)
	golden(t, "many-errors.txt", []byte(report(warnings, err)+"\n"))
}
