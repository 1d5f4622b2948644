// Package errors stands in for the SDK's package of the same path; see package common.
package errors

// TencentCloudSDKError is what the SDK's calls return; nothing here makes one.
type TencentCloudSDKError struct{ Message string }

// Error returns the message.
func (e *TencentCloudSDKError) Error() string { return e.Message }
