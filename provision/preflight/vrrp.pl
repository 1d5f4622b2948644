# Prints the VRRP packets that a host's link carries, each sender's once, as
# hex lines from the IP header on, and "end". Arguments: seconds to listen, the
# host's address on the link, the interface ("" for that address'), a router ID.
# Where our keepalived has that ID already it says "known" and does not listen;
# 0 listens always. Needs perl-base alone, and sends nothing: not even the
# report that joining a multicast group would, which a keepalived on this host
# would then hear with.
use Socket;
my ($seconds, $address, $name, $id) = @ARGV;
if (open my $file, "<", "/etc/keepalived/keepalived.conf") {
	local $/;
	my $config = <$file>;
	if ($config =~ /^# Written by ha-install / && $config =~ /^\s*virtual_router_id $id$/m) {
		print "known\nend\n";
		exit;
	}
}
if ($name eq "") { # "2: eth0    inet 198.51.100.11/24 ..."
	open my $ip, "-|", "ip", "-oneline", "address", "show", "to", $address or die "ip: $!\n";
	(undef, $name) = split " ", <$ip> // "";
	$name = "" unless defined $name;
	$name =~ s/@.*//;
}
open my $file, "<", "/sys/class/net/$name/ifindex" or die "no interface has $address\n";
my $index = <$file>;

# A packet socket of the kernel's headers: AF_PACKET 17, ETH_P_IP 0x0800. It
# hears nothing until it is bound, when the filter is there: protocol 112 alone.
socket my $link, 17, SOCK_DGRAM, 0 or die "packet socket: $!\n";
my $filter = pack "SCCL" x 4, 0x30, 0, 0, 9, 0x15, 0, 1, 112, 0x06, 0, 0, 0xffff, 0x06, 0, 0, 0;
setsockopt $link, SOL_SOCKET, 26, pack "S x![J] P", 4, $filter or die "SO_ATTACH_FILTER: $!\n";
# SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_MULTICAST: the address of 224.0.0.18.
setsockopt $link, 263, 1, pack "i S S a8", $index, 0, 6, "\x01\x00\x5e\x00\x00\x12" or die "PACKET_ADD_MEMBERSHIP: $!\n";
bind $link, pack "S n i S C C a8", 17, 0x0800, $index, 0, 0, 0, "" or die "bind to $name: $!\n";

my %seen;
for (;;) {
	vec(my $ready = "", fileno $link, 1) = 1;
	(my $n, $seconds) = select $ready, undef, undef, $seconds; # Linux leaves the time that is left
	last if $n < 1;
	defined recv $link, my $packet, 512, 0 or next;
	my $from = substr $packet, 12, 10; # source, destination, and what follows a header without options
	next if $seen{$from}++ || keys %seen > 64;
	print unpack("H*", $packet), "\n";
}
print "end\n";
