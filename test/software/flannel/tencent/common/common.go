// Package common stands in for the package of the same path in Tencent Cloud's
// SDK, which the module proxies do not serve at the version that flannel asks
// for. flannel's tencent-vpc backend compiles against it; no other backend uses it.
package common

// StringPtr returns a pointer to s.
func StringPtr(s string) *string { return &s }

// BoolPtr returns a pointer to b.
func BoolPtr(b bool) *bool { return &b }

// StringPtrs returns a pointer to each of the values.
func StringPtrs(values []string) []*string {
	ptrs := make([]*string, len(values))
	for i := range values {
		ptrs[i] = &values[i]
	}
	return ptrs
}
