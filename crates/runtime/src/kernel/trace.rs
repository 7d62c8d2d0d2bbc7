//! Tracing a thread for the length of one system call that it is made to execute.

use std::mem;
use std::ptr;

use libc::{c_long, user_regs_struct};
use rustix::io::Errno;

use super::{check, last_error, signal};

/// Length of the `syscall` instruction.
const INSTRUCTION: u64 = 2;

/// Why a traced thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Before or after a system call.
    Call,
    /// A new program has replaced the old one.
    Exec,
    /// Anything else: our own interrupt, a stop of the whole group, a signal.
    Other,
}

/// How a system call that a thread was made to execute came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this.
    Returned(i64),
    /// A new program has replaced the old one; the thread stands before its first instruction.
    Executed,
}

/// A thread that is traced by the calling thread and stands still. The thread is let go when this is dropped.
///
/// All signals of the thread are blocked meanwhile, so that no handler of its runs in between; only being killed interferes, and shows as an error.
pub struct Traced {
    thread: i32,
    registers: user_regs_struct,
    mask: u64,
    /// A signal to be delivered when it goes on.
    signal: i32,
    /// Whether it is dead and reaped.
    is_gone: bool,
}

/// A thread that will stop as soon as its trapped call is answered. After the answer, [`Interrupted::stop`] must follow.
#[must_use]
pub struct Interrupted {
    thread: i32,
}

impl Interrupted {
    /// Attaches to a thread that waits for an answer to a trapped call.
    ///
    /// # Errors
    /// `EPERM` if tracing is not allowed, `ESRCH` if the thread is gone.
    pub fn attach(thread: i32) -> Result<Self, Errno> {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC;
        request(libc::PTRACE_SEIZE, thread, 0, options as usize)?;
        // This fails only if the thread was killed, which shows when we wait for it.
        let _ = request(libc::PTRACE_INTERRUPT, thread, 0, 0);
        Ok(Self { thread })
    }

    /// Waits until the thread, whose call has been answered by now, stands behind the call.
    ///
    /// # Errors
    /// `ESRCH` if it was killed.
    pub fn stop(self) -> Result<Traced, Errno> {
        // Should a step fail, the drop of `Traced` detaches.
        let mut traced = Traced {
            thread: self.thread,
            registers: zeroed(),
            mask: 0,
            signal: 0,
            is_gone: false,
        };
        traced.wait()?;
        let mut mask = 0_u64;
        request(
            libc::PTRACE_GETSIGMASK,
            traced.thread,
            size_of::<u64>(),
            ptr::from_mut(&mut mask) as usize,
        )?;
        let registers = traced.read_registers()?;
        let all = u64::MAX;
        request(
            libc::PTRACE_SETSIGMASK,
            traced.thread,
            size_of::<u64>(),
            ptr::from_ref(&all) as usize,
        )?;
        (traced.mask, traced.registers) = (mask, registers);
        Ok(traced)
    }
}

impl Traced {
    /// Number of the thread, which an `exec` may have changed to that of its process.
    pub fn thread(&self) -> i32 {
        self.thread
    }

    /// The stack pointer.
    pub fn stack(&self) -> u64 {
        self.registers.rsp
    }

    /// Memory of the thread's that it does not use: so many bytes beneath its stack.
    pub fn scratch(&self, size: usize) -> u64 {
        /// Bytes below the stack pointer that a function may use without telling.
        const RED_ZONE: u64 = 128;
        (self.registers.rsp - RED_ZONE - size as u64) & !15
    }

    /// The address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.registers.rip
    }

    /// Makes the thread execute a system call through the `syscall` instruction that it has just left.
    ///
    /// # Errors
    /// `ESRCH` if it was killed.
    pub fn call(&mut self, number: i64, arguments: [u64; 6]) -> Result<Outcome, Errno> {
        self.call_at(self.registers.rip - INSTRUCTION, number, arguments)
    }

    /// Makes the thread execute a system call through the `syscall` instruction at this address.
    ///
    /// # Errors
    /// `ESRCH` if it was killed.
    pub fn call_at(
        &mut self,
        instruction: u64,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<Outcome, Errno> {
        let registers = user_regs_struct {
            rip: instruction,
            rax: number as u64,
            // No system call is under way that could be restarted.
            orig_rax: u64::MAX,
            rdi: arguments[0],
            rsi: arguments[1],
            rdx: arguments[2],
            r10: arguments[3],
            r8: arguments[4],
            r9: arguments[5],
            ..self.registers
        };
        self.write_registers(&registers)?;
        // Up to the entry of the call, then to its end.
        while self.resume()? != Stop::Call {}
        let mut executed = false;
        loop {
            match self.resume()? {
                Stop::Exec => executed = true,
                Stop::Call if executed => {
                    self.registers = self.read_registers()?;
                    return Ok(Outcome::Executed);
                }
                Stop::Call => return Ok(Outcome::Returned(self.read_registers()?.rax as i64)),
                Stop::Other => {}
            }
        }
    }

    /// Lets the thread go on where it was trapped, its call returning `value`.
    pub fn finish(mut self, value: i64) {
        self.registers.rax = value as u64;
        drop(self);
    }

    /// Lets the thread make its call, which had this number, once more.
    pub fn again(mut self, number: i64) {
        self.registers.rax = number as u64;
        self.registers.rip -= INSTRUCTION;
        drop(self);
    }

    /// Lets the thread run up to its next stop.
    fn resume(&mut self) -> Result<Stop, Errno> {
        request(
            libc::PTRACE_SYSCALL,
            self.thread,
            0,
            mem::take(&mut self.signal) as usize,
        )?;
        self.wait()
    }

    /// Waits for the next event of the one thread that the calling thread traces.
    fn wait(&mut self) -> Result<Stop, Errno> {
        let mut status = 0;
        let options = libc::__WALL | libc::__WNOTHREAD;
        let thread = loop {
            // SAFETY: waitpid writes one status. The thread is not named, because `exec` may change its number.
            match check(unsafe { libc::waitpid(-1, &mut status, options) }.into()) {
                Ok(thread) => break thread as i32,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.is_gone = true;
                    return Err(Errno::SRCH);
                }
            }
        };
        if !libc::WIFSTOPPED(status) {
            self.is_gone = true;
            // If it was our own child, nobody else will be told of its end.
            signal::record_end(thread, status);
            return Err(Errno::SRCH);
        }
        self.thread = thread;
        Ok(match (libc::WSTOPSIG(status), status >> 16) {
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => Stop::Call,
            (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => Stop::Exec,
            // SIGSTOP can't be blocked; it takes effect when the thread goes on.
            (signal, 0) => {
                self.signal = signal;
                Stop::Other
            }
            _ => Stop::Other,
        })
    }

    fn read_registers(&self) -> Result<user_regs_struct, Errno> {
        let mut registers = zeroed();
        request(
            libc::PTRACE_GETREGS,
            self.thread,
            0,
            ptr::from_mut(&mut registers) as usize,
        )?;
        Ok(registers)
    }

    fn write_registers(&self, registers: &user_regs_struct) -> Result<(), Errno> {
        request(
            libc::PTRACE_SETREGS,
            self.thread,
            0,
            ptr::from_ref(registers) as usize,
        )
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Each step fails only if the thread was killed.
        if self.registers.rip != 0 {
            self.registers.orig_rax = u64::MAX;
            let _ = self.write_registers(&self.registers);
            let _ = request(
                libc::PTRACE_SETSIGMASK,
                self.thread,
                size_of::<u64>(),
                ptr::from_ref(&self.mask) as usize,
            );
        }
        // What can't be let go is dying. Its end must be taken: it would be mistaken for that of the next one that this thread traces.
        while !self.is_gone {
            if request(libc::PTRACE_DETACH, self.thread, 0, self.signal as usize).is_ok() {
                return;
            }
            let _ = self.wait();
        }
    }
}

fn zeroed() -> user_regs_struct {
    // SAFETY: registers are numbers.
    unsafe { mem::zeroed() }
}

fn request(request: libc::c_uint, thread: i32, address: usize, data: usize) -> Result<(), Errno> {
    // SAFETY: where `data` is an address, the caller took it from a live value of the type that the request reads or writes.
    let status: c_long = unsafe { libc::ptrace(request, thread, address, data) };
    if status < 0 {
        Err(last_error())
    } else {
        Ok(())
    }
}
