# Processes, pipes, sockets, modules and files, as scripts of Perl use them.
use strict; use warnings;
use POSIX qw(:sys_wait_h dup2 setsid); use File::Find; use IO::Socket::INET; use Digest::SHA; use Data::Dumper; use Time::HiRes;
$| = 1;
print "$0 @ARGV\n";
find({ no_chdir => 1, preprocess => sub { sort @_ }, wanted => sub { my @s = lstat $_; printf "%s %o %d\n", $_, $s[2], -d _ ? 0 : $s[7] } }, '/data');
print "$_ ", Digest::SHA->new(256)->addfile($_)->hexdigest, "\n" for '/data/small', '/data/big';
chdir '/data' or die; print POSIX::getcwd(), " ", (-e 'small' ? 1 : 0), (-w 'small' ? 1 : 0), (-r 'small' ? 1 : 0), "\n";
my $total = 0;
for my $n (1 .. 5) { my $pid = fork; if (!$pid) { exit $n } waitpid $pid, 0; $total += $? >> 8 } print "children $total\n";
print `perl -e 'print "backticks \$0\n"; exit 3'`, $? >> 8, "\n";
open my $pipe, '-|', 'perl', '-ne', 'print if /b/', '/data/small' or die; print <$pipe>; close $pipe; print "pipe $?\n";
my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die;
if (!fork) { my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server->sockport); print $c "hello\n"; exit }
my $client = $server->accept; print "socket ", scalar <$client>; wait;
local $SIG{ALRM} = sub { print "alarm\n" }; Time::HiRes::alarm(0.05); select undef, undef, undef, 0.2;
local $SIG{CHLD} = sub { }; system 'sh', '-c', 'kill -9 $$'; print "signalled ", $? & 127, "\n";
opendir my $dir, '/data' or die; print join(' ', sort readdir $dir), "\n"; rewinddir $dir; print scalar(my @all = readdir $dir), "\n";
for my $try (sub { open my $f, '>', '/data/x' }, sub { unlink '/data/small' }, sub { mkdir '/data/d' }, sub { rename '/data/small', '/data/y' }) { $try->(); print 0 + $!, "\n" }
exec 'perl', '-e', 'print "exec @ARGV\n"; exit 6', 'a', 'b';
