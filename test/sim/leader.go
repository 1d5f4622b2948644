package sim

// Leader is the host whose etcd leads; "" for none.
func (w *World) Leader() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.leader(); m != nil {
		return m.name
	}
	return ""
}
