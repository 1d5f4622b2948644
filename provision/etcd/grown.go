package etcd

import "slices"

// Grown is the verdict that a join of the host would leave, everything else
// staying as it is: one more healthy voter, and no learner of its own. It is
// for projecting several joins in a row before the first of them.
func Grown(v Verdict, h Host) Verdict {
	v.Members = slices.DeleteFunc(slices.Clone(v.Members), func(m Member) bool { return sameURL(m.PeerURL, h.PeerURL) })
	v.Members = append(v.Members, Member{Name: h.Name, Host: h.Name, PeerURL: h.PeerURL, Role: Voter, State: MemberHealthy, Healthy: true})
	voters, healthy, learners, unnamed := 0, 0, 0, 0
	for _, m := range v.Members {
		switch m.Role {
		case Voter:
			voters++
			if m.Healthy {
				healthy++
			}
		case Learner:
			learners++
		}
		if m.Unnamed && m.Role != NoRole {
			unnamed++
		}
	}
	v.Numbers = numbers(voters, healthy, learners, unnamed)
	return v
}
