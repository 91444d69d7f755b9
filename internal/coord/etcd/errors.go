package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"drover/internal/coord"
)

// kind gives err the port's kind, if it has none. ctx is the caller's.
func (c *Client) kind(ctx context.Context, err error) error {
	if coord.Kind(err) != nil {
		return err
	}
	kind := kindOf(err)
	switch {
	case kind == nil:
		return err
	case kind == coord.ErrUnavailable && c.ctx.Err() != nil:
		return errClosed
	case kind == coord.ErrUnavailable && ctx.Err() != nil:
		return fmt.Errorf("%w: %w: %w", kind, ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// kindOf returns the port's kind of an error of etcd, gRPC or a context; nil: none of them.
func kindOf(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return coord.ErrUnavailable
	}
	known := rpctypes.Error(err) // the same for what clientv3 has translated and what it has not
	is := func(kinds ...error) bool {
		return slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(known, k) })
	}
	switch {
	case is(rpctypes.ErrLeaseNotFound):
		return coord.ErrNotFound
	case is(rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps):
		return coord.ErrTooLarge
	case is(rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound,
		rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrPermissionNotGranted, rpctypes.ErrRoleNotGranted):
		return coord.ErrUnauthorized
	case is(rpctypes.ErrNoSpace, rpctypes.ErrTooManyRequests, rpctypes.ErrNotCapable, rpctypes.ErrNotLeader):
		return coord.ErrUnavailable
	}
	var answer rpctypes.EtcdError
	if errors.As(known, &answer) {
		return kindOfCode(answer.Code())
	}
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return nil
	case s.Code() == codes.ResourceExhausted:
		return coord.ErrTooLarge // gRPC's own limit on a message, here or there
	}
	return kindOfCode(s.Code())
}

func kindOfCode(code codes.Code) error {
	switch code {
	case codes.Unauthenticated, codes.PermissionDenied:
		return coord.ErrUnauthorized
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled,
		// A connection or a member that broke in the middle: what became of the call is unknown.
		codes.Internal, codes.Unknown, codes.Aborted, codes.DataLoss:
		return coord.ErrUnavailable
	}
	return nil
}

// loginExpired says whether another login may mend err. Nothing was done then.
func loginExpired(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrInvalidAuthToken) || errors.Is(known, rpctypes.ErrUserEmpty) ||
		errors.Is(known, rpctypes.ErrAuthOldRevision)
}
