package inventory

// Patterns of the schema; Parse's own checks say more.
const (
	patternLabel   = `^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
	patternRelease = `^v1\.(3[3-9]|[4-9][0-9]|[1-9][0-9]{2,})\.(0|[1-9][0-9]*)$`
	patternCIDR    = `^[0-9a-fA-F.:]+/[0-9]{1,3}$`
	patternName    = `^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`
	patternCheck   = `^[A-Za-z][A-Za-z0-9-]*$`
	patternCopy    = `^(sftp://([^:@/]+@)?[^/@?#]+/[^?#]+|s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^?#]*)?|masters:///[^/?#]+/[^?#]+)$`
	patternKey     = `^(ssh|ecdsa|sk)-[^ ]+ [A-Za-z0-9+/=]+( .*)?$`
	// of a schedule, and of a recipient of age
	patternDuration  = `^([0-9]+(\.[0-9]+)?(h|m|s))+$`
	patternRecipient = `^age1[0-9a-z]+$`
)

var (
	portRule = object{"minimum": 1, "maximum": 65535}
	ipRule   = object{"anyOf": []object{{"format": "ipv4"}, {"format": "ipv6"}}}
	keysRule = object{"items": object{"type": "string", "pattern": patternKey}, "minItems": 1}
	nonEmpty = object{"minLength": 1}
)

// rules are what Go's types do not say, by "Type.field" and by "Type".
var rules = map[string]object{
	"Cluster.apiVersion":           {"const": APIVersion},
	"Cluster.kind":                 {"const": Kind},
	"Metadata.name":                {"pattern": patternLabel},
	"Spec.hosts":                   {"minItems": 1},
	"Kubernetes.version":           {"pattern": patternRelease, "examples": []string{"v1.36.3"}},
	"Endpoint.host":                nonEmpty,
	"Endpoint.port":                {"minimum": 1, "maximum": 65535, "default": DefaultPort},
	"LoadBalancer.mode":            {"default": BalancerDedicated},
	"LoadBalancer.vip":             ipRule,
	"LoadBalancer.interface":       {"maxLength": 15},
	"LoadBalancer.virtualRouterID": {"minimum": 1, "maximum": 255, "default": DefaultVirtualRouterID},
	"SSH.port":                     portRule,
	"SSH.agent":                    {"default": true},
	"SSH.hostKeys":                 keysRule,
	"Bastion.address":              nonEmpty,
	"Bastion.port":                 portRule,
	"Bastion.hostKeys":             keysRule,
	"Host.name":                    {"pattern": patternLabel},
	"Host.address":                 nonEmpty,
	"Host.internalAddress":         ipRule,
	"Host.role":                    {"enum": []Role{RoleControlPlane, RoleLoadBalancer, RoleWorker, roleMaster}},
	"Host.labels":                  {"additionalProperties": object{"type": "string", "pattern": patternName}},
	"Taint.key":                    nonEmpty,
	"Taint.value":                  {"pattern": patternName},
	"Taint.effect":                 {"enum": []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}},
	"Network.podCIDR":              {"pattern": patternCIDR, "default": DefaultPodCIDR},
	"Network.serviceCIDR":          {"pattern": patternCIDR, "default": DefaultServiceCIDR},
	"Network.dnsDomain":            {"default": DefaultDNSDomain},
	"CNI.plugin":                   {"default": CNIFlannel},
	"CNI.backend":                  {"default": CNIBackendVXLAN},
	"CNI": {
		"if":   having("plugin", CNIManifests),
		"then": object{"required": []string{"manifests"}},
		"else": object{"properties": object{"manifests": false}},
	},
	"Software.source": {"default": SourceBundle},
	"Software": {
		"if":   having("source", SourceInstalled),
		"then": object{"properties": object{"bundle": false}},
		"else": object{"required": []string{"bundle"}},
	},
	"BackupCopy.to":       {"pattern": patternCopy, "examples": []string{"sftp://backup@nas.example.com/srv/backups", "s3://bucket/prefix", "masters:///var/backups/ha-install"}},
	"BackupCopy.endpoint": {"pattern": `^https?://[^/@?#]+/?$`},
	"Backup.schedule":     {"pattern": patternDuration, "examples": []string{"24h"}},
	"Backup.keep":         {"minimum": 1, "default": DefaultBackupKeep},
	"Backup.recipients":   {"items": object{"type": "string", "pattern": patternRecipient}},
	"Preflight.ignoreErrors": {"items": object{
		"type": "string", "pattern": patternCheck, "not": object{"enum": []string{"all", "All", "ALL"}},
	}},
}

// having is the condition that a property is there with one value.
func having(property string, value any) object {
	return object{"properties": object{property: object{"const": value}}, "required": []string{property}}
}
