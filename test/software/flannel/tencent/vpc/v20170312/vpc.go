// Package v20170312 stands in for the SDK's package of the same path (see
// tencent/common): it has the names that flannel's tencent-vpc backend uses,
// and every call to it returns ErrAbsent.
package v20170312

import "errors"

// ErrAbsent is what every call returns.
var ErrAbsent = errors.New("the tencent-vpc backend is not part of this build")

// Filter selects objects by a field's values.
type Filter struct {
	Name   *string
	Values []*string
}

// Route is one entry of a route table.
type Route struct {
	DestinationCidrBlock, GatewayId, GatewayType, RouteType *string
	RouteId                                                 *uint64
	Enabled                                                 *bool
}

// RouteTable is a set of routes.
type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}

// DescribeRouteTablesRequest asks for the tables that match the filters.
type DescribeRouteTablesRequest struct{ Filters []*Filter }

// RouteTables holds the tables of an answer.
type RouteTables struct{ RouteTableSet []*RouteTable }

// DescribeRouteTablesResponse answers a DescribeRouteTablesRequest.
type DescribeRouteTablesResponse struct{ Response *RouteTables }

// RoutesRequest names routes of one table.
type RoutesRequest struct {
	RouteTableId *string
	Routes       []*Route
}

// NewDescribeRouteTablesRequest returns an empty request.
func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}

// NewDeleteRoutesRequest returns an empty request.
func NewDeleteRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

// NewCreateRoutesRequest returns an empty request.
func NewCreateRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

// Client refuses every call.
type Client struct{}

// NewClientWithSecretId returns ErrAbsent and a client that does the same.
func NewClientWithSecretId(_, _, _ string) (*Client, error) { return &Client{}, ErrAbsent }

// DescribeRouteTables returns ErrAbsent.
func (*Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, ErrAbsent
}

// DeleteRoutes returns ErrAbsent.
func (*Client) DeleteRoutes(*RoutesRequest) (*RoutesRequest, error) { return nil, ErrAbsent }

// CreateRoutes returns ErrAbsent.
func (*Client) CreateRoutes(*RoutesRequest) (*RoutesRequest, error) { return nil, ErrAbsent }
