// SPDX-License-Identifier: Apache-2.0
import Foundation

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Something that the run cannot do, in words for the user.
struct CrashtestError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// A process in a group of its own, so that a signal reaches it and whatever it started.
///
/// Used by one thread at a time.
final class ChildProcess {
  let pid: pid_t
  /// Takes what the process writes.
  let log: String
  private var status: CInt?

  /// Starts a program that is looked for on the PATH. Output is appended to `log`.
  init(_ arguments: [String], log: String) throws(CrashtestError) {
    #if canImport(Darwin)
      var attributes: posix_spawnattr_t?
      var actions: posix_spawn_file_actions_t?
    #else
      var attributes = posix_spawnattr_t()
      var actions = posix_spawn_file_actions_t()
    #endif
    posix_spawnattr_init(&attributes)
    posix_spawn_file_actions_init(&actions)
    defer {
      posix_spawnattr_destroy(&attributes)
      posix_spawn_file_actions_destroy(&actions)
    }
    // What this process ignores, the child would ignore too.
    var defaults = sigset_t()
    sigemptyset(&defaults)
    for signal in [SIGINT, SIGTERM, SIGPIPE, SIGHUP] { sigaddset(&defaults, signal) }
    var mask = sigset_t()
    sigemptyset(&mask)
    posix_spawnattr_setsigdefault(&attributes, &defaults)
    posix_spawnattr_setsigmask(&attributes, &mask)
    posix_spawnattr_setpgroup(&attributes, 0)
    let flags = CInt(POSIX_SPAWN_SETPGROUP) | CInt(POSIX_SPAWN_SETSIGDEF)
    posix_spawnattr_setflags(&attributes, numericCast(flags | CInt(POSIX_SPAWN_SETSIGMASK)))
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)

    var words = arguments.map { strdup($0) } + [nil]
    var environment =
      ProcessInfo.processInfo.environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer {
      for pointer in words + environment { free(pointer) }
    }
    var child: pid_t = 0
    let result = posix_spawnp(
      &child, arguments[0], &actions, &attributes, &words, &environment)
    guard result == 0 else {
      throw CrashtestError("cannot start \(arguments[0]): \(String(cString: strerror(result)))")
    }
    pid = child
    self.log = log
  }

  /// Looks whether the process has ended, and takes its status if so.
  var isRunning: Bool {
    if status != nil { return false }
    var found: CInt = 0
    let result = waitpid(pid, &found, WNOHANG)
    if result == pid || (result < 0 && errno == ECHILD) { status = found }
    return status == nil
  }

  /// The exit status, 128 and the signal's number, or nil while it runs.
  var exitStatus: Int? {
    guard !isRunning, let status else { return nil }
    return status & 0x7f == 0 ? Int(status >> 8) & 0xff : 128 + Int(status & 0x7f)
  }

  func signalGroup(_ signal: CInt) { _ = systemKill(-pid, signal) }

  /// True if the process ended within that time.
  @discardableResult
  func waitForEnd(seconds: Double) -> Bool {
    poll(seconds: seconds) { !isRunning }
  }

  /// SIGKILL to the whole group; returns when none of it is left, which is when its files and
  /// ports are free again.
  func kill() {
    signalGroup(SIGKILL)
    waitForEnd(seconds: 30)
    poll(seconds: 10) { systemKill(-pid, 0) != 0 || Self.isOnlyZombies(group: pid) }
  }

  /// SIGTERM, and SIGKILL for what does not listen. True if it ended by itself.
  func stop(seconds: Double = 20) -> Bool {
    signalGroup(SIGTERM)
    let ended = waitForEnd(seconds: seconds)
    kill()
    return ended
  }

  /// Stops every thread of the group where it is. False if some did not stop in time.
  ///
  /// Of a traced process the tracer stops at once, and a thread at its next system call or at the
  /// return from the one it is in; one that sleeps in a call can begin no other.
  func freeze(isTraced: Bool = false) -> Bool {
    signalGroup(SIGSTOP)
    let allowed = isTraced ? "TtSZX" : "TtZX"
    var rounds = 0
    return poll(seconds: 10) {
      let states = Self.threads(ofGroup: pid)
      let isStill = states.allSatisfy { allowed.contains($0) }
      let isStopped = isTraced ? states.contains("T") : !states.isEmpty
      rounds = isStill && isStopped ? rounds + 1 : 0
      return rounds >= 3
    }
  }

  private static func isOnlyZombies(group: pid_t) -> Bool {
    let states = threads(ofGroup: group)
    #if os(Linux)
      return states.allSatisfy { "ZX".contains($0) }
    #else
      return false
    #endif
  }

  /// The processes of the group that can be looked at.
  var members: [pid_t] { Self.processes(ofGroup: pid) }

  private static func processes(ofGroup group: pid_t) -> [pid_t] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { pid_t($0) }.filter { stat("/proc/\($0)/stat")?.1 == group }
  }

  /// The states of all threads in a process group, as Linux shows them.
  private static func threads(ofGroup group: pid_t) -> [Character] {
    processes(ofGroup: group).flatMap { process in
      let tasks = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")
      return (tasks ?? []).compactMap { stat("/proc/\(process)/task/\($0)/stat")?.0 }
    }
  }

  /// State and process group of a `stat` file.
  private static func stat(_ path: String) -> (Character, pid_t)? {
    guard let data = FileManager.default.contents(atPath: path) else { return nil }
    // The name in parentheses may hold anything; the last one closes it.
    let text = String(decoding: data, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    guard fields.count > 2, let state = fields[0].first, let group = pid_t(fields[2]) else {
      return nil
    }
    return (state, group)
  }

  /// Runs a command to its end. Throws with what it printed if it fails.
  @discardableResult
  static func run(_ arguments: [String], seconds: Double = 120) throws(CrashtestError) -> String {
    let log = FileManager.default.temporaryDirectory
      .appendingPathComponent("penstock-crashtest-\(UUID().uuidString)").path
    defer { unlink(log) }
    let process = try ChildProcess(arguments, log: log)
    if !process.waitForEnd(seconds: seconds) { process.kill() }
    let output = String(
      decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self)
    guard process.exitStatus == 0 else {
      let text = output.split(separator: "\n").joined(separator: "; ")
      throw CrashtestError("`\(arguments.joined(separator: " "))` failed: \(text)")
    }
    return output
  }
}

/// `kill(2)`, whose name the method above takes.
private func systemKill(_ pid: pid_t, _ signal: CInt) -> CInt { kill(pid, signal) }

/// Waits for something that announces itself in no other way. False when the time is over.
@discardableResult
func poll(seconds: Double, every pause: Double = 0.005, until isDone: () -> Bool) -> Bool {
  let end = Date().addingTimeInterval(seconds)
  while !isDone() {
    guard Date() < end else { return false }
    Thread.sleep(forTimeInterval: pause)
  }
  return true
}
