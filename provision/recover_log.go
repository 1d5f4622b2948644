package provision

// wholeLogScript marks all of a log as committed, in a copy of it that no etcd has
// open: it appends one record to the last file, the member's state with the last
// entry's index for its mark. Each record is a length, its upper byte the padding,
// and a message of a type (2 is an entry, 3 a state, 4 a checksum to begin with), the
// CRC-32C of all data up to it, and data. Only how the log ends is checked here: etcd
// checks all of it when it opens it.
//
//	the first argument is the directory
const wholeLogScript = `use strict; use warnings;
my ($file) = reverse sort glob "$ARGV[0]/*.wal";
open my $f, "+<:raw", $file or die "$file: $!\n";
my $all = do { local $/; <$f> };
my @table = map { my $c = $_; $c = $c & 1 ? $c >> 1 ^ 0x82F63B78 : $c >> 1 for 1 .. 8; $c } 0 .. 255;
sub sum { my ($c, $data) = @_; $c ^= 0xffffffff; $c = $table[($c ^ $_) & 255] ^ $c >> 8 for unpack "C*", $data; $c ^ 0xffffffff }
sub number { my ($s, $n, $shift) = (@_, 0, 0); while (1) { my $b = ord substr $$s, pos($$s)++, 1; $n |= ($b & 127) << $shift; $shift += 7; return $n if $b < 128 } }
sub bytes { my ($n, $out) = ($_[0], ""); while ($n > 127) { $out .= chr($n & 127 | 128); $n >>= 7 } $out . chr $n }
sub fields { my %v; my $s = shift; pos($s) = 0;
	while (pos($s) < length $s) { my $tag = number(\$s); my $n = number(\$s); if (($tag & 7) == 2) { $v{$tag >> 3} = substr $s, pos($s), $n; pos($s) += $n } else { $v{$tag >> 3} = $n } } \%v }
my ($at, $crc, $before, $last, $state, $index) = (0, 0, 0);
while ($at + 8 <= length $all) {
	my $size = unpack "Q<", substr $all, $at, 8;
	last if !$size;
	my $pad = $size >> 63 ? $size >> 56 & 7 : 0;
	$size &= ~(255 << 56);
	die "its log does not end as one does\n" if $at + 8 + $size + $pad > length $all;
	$last = fields(substr $all, $at + 8, $size);
	($before, $crc) = ($crc, $last->{2});
	my $data = $last->{3} // "";
	$index = fields($data)->{3} if $last->{1} == 2;
	$state = fields($data) if $last->{1} == 3;
	$at += 8 + $size + $pad;
}
die "its log does not end as one does\n" if !$last || $last->{1} != 4 && sum($before, $last->{3} // "") != $crc;
if (!$state || !$index || $index <= $state->{3}) { print "all of its log is marked as committed\n"; exit }
my $data = "\x08" . bytes($state->{1}) . "\x10" . bytes($state->{2}) . "\x18" . bytes($index);
my $record = "\x08\x03\x10" . bytes(sum($crc, $data)) . "\x1a" . bytes(length $data) . $data;
my $pad = -length($record) % 8;
seek $f, $at, 0;
print $f pack("Q<", length($record) | ($pad ? (128 | $pad) << 56 : 0)), $record, "\0" x $pad or die "$!\n";
close $f or die "$!\n";
print "its log is taken to its end: entry $index, $state->{3} is the last that was marked as committed\n";
`
