package host

import "context"

// ReadOnly wraps a host so that nothing can change it: every method of Writer
// returns *ReadOnlyError. Closing it closes the host.
func ReadOnly(h Host) Host { return readOnly{h} }

type readOnly struct{ Host }

func (r readOnly) refuse(what string) error { return &ReadOnlyError{Host: r.Name(), What: what} }

func (r readOnly) Run(_ context.Context, cmd Command) ([]byte, error) {
	return nil, r.refuse("run " + Quote(cmd.Argv))
}

func (r readOnly) Upload(_ context.Context, f File) (bool, error) {
	return false, r.refuse("upload " + f.Path)
}

func (r readOnly) UploadAll(_ context.Context, files []File) ([]string, error) {
	if len(files) == 0 {
		return nil, nil
	}
	return nil, r.refuse("upload " + files[0].Path)
}

func (r readOnly) MoveAside(_ context.Context, path string) (string, error) {
	return "", r.refuse("move aside " + path)
}

func (r readOnly) Step(_ context.Context, s Step) (StepResult, error) {
	return StepResult{}, r.refuse("step " + s.ID)
}

func (r readOnly) Lock(context.Context, Holder, LockHooks) (Lock, error) {
	return nil, r.refuse("take the lock")
}
