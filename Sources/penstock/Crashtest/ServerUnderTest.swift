// SPDX-License-Identifier: Apache-2.0
import Foundation

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What is put through the test: this executable's own server, or any command.
package enum Target: Equatable, Sendable {
  case penstock(executable: String, durability: String)
  case command(String, endpoint: String)

  package var isPenstock: Bool {
    if case .penstock = self { return true }
    return false
  }

  /// True if the tool knows where the server keeps its files.
  package var hasDataDirectory: Bool {
    switch self {
    case .penstock: true
    case .command(let text, _): text.contains("{data}")
    }
  }

  /// Segments are small, so that a run fills and leaves many of them.
  static let segmentSize = 1 << 20

  /// The command line that serves `data` on `port`.
  package func arguments(data: String, port: Int) -> [String] {
    switch self {
    case .penstock(let executable, let durability):
      [
        executable, "serve", "--data-dir", data, "--host", "127.0.0.1", "--port", "\(port)",
        "--segment-size", "\(Self.segmentSize)", "--durability", durability,
      ]
    case .command(let text, _):
      ["/bin/sh", "-c", Self.fill(text, data: Self.quoted(data), port: port)]
    }
  }

  package func endpoint(port: Int) -> Endpoint? {
    switch self {
    case .penstock: Endpoint(host: "127.0.0.1", port: port)
    case .command(_, let text): Endpoint(Self.fill(text, data: "", port: port))
    }
  }

  private static func fill(_ text: String, data: String, port: Int) -> String {
    text.replacingOccurrences(of: "{port}", with: "\(port)")
      .replacingOccurrences(of: "{data}", with: data)
  }

  /// One word for the shell, whatever it holds.
  private static func quoted(_ text: String) -> String {
    "'" + text.replacingOccurrences(of: "'", with: "'\\''") + "'"
  }
}

/// A running server that has answered a request.
final class RunningServer {
  static let queueName = "crashtest"
  /// How long a message stays hidden by default.
  static let queueVisibility = 2
  static let startSeconds = 30.0

  let process: ChildProcess
  let endpoint: Endpoint
  /// What its clients name in requests.
  let queue: String

  private init(_ process: ChildProcess, _ endpoint: Endpoint, _ queue: String) {
    self.process = process
    self.endpoint = endpoint
    self.queue = queue
  }

  /// Why a server did not come up.
  struct Refusal: Error {
    var reason: String
  }

  /// Starts the target and does not wait. `wrapper` are words before the command line.
  static func spawn(
    _ target: Target, data: String, log: String, wrapper: [String] = []
  ) throws -> (process: ChildProcess, endpoint: Endpoint) {
    let port = try freePort()
    guard let endpoint = target.endpoint(port: port) else {
      throw CrashtestError(
        "--endpoint must be http://HOST:PORT, and {port} may stand for the port.")
    }
    if !target.isPenstock, target.hasDataDirectory { try makeDirectory(data) }
    let words = wrapper + target.arguments(data: data, port: port)
    return (try ChildProcess(words, log: log), endpoint)
  }

  /// Starts the target and waits until it answers.
  static func start(
    _ target: Target, data: String, log: String, wrapper: [String] = [],
    seconds: Double = startSeconds, stop: StopFlag
  ) throws -> RunningServer {
    let before = size(of: log)
    let (process, endpoint) = try spawn(target, data: data, log: log, wrapper: wrapper)
    var isUp = false
    defer { if !isUp { process.kill() } }
    var queue: String?
    var problem = "it does not answer"
    poll(seconds: seconds, every: 0.01) {
      guard process.isRunning, !stop.isSet else { return true }
      do {
        queue = try findQueue(SQSClient(endpoint, timeoutSeconds: 5), &problem)
      } catch {
        problem = "\(error)"
      }
      return queue != nil
    }
    guard let queue else {
      if stop.isSet { throw Interrupted() }
      let output = text(of: log, from: before)
      let last = output.split(separator: "\n").suffix(3).joined(separator: " | ").prefix(600)
      if let status = process.exitStatus {
        throw Refusal(reason: "ended with status \(status): \(last)")
      }
      throw Refusal(
        reason: "no usable answer within \(Int(seconds)) s (\(problem)); output: \(last)")
    }
    isUp = true
    return RunningServer(process, endpoint, queue)
  }

  /// The queue's URL; nil with a reason while it cannot be had.
  private static func findQueue(_ client: SQSClient, _ problem: inout String) throws -> String? {
    let found = try client.call("GetQueueUrl", ["QueueName": queueName])
    if found.isSuccess, let url = found.members["QueueUrl"] as? String { return url }
    let made = try client.call(
      "CreateQueue",
      ["QueueName": queueName, "Attributes": ["VisibilityTimeout": "\(queueVisibility)"]])
    if made.isSuccess, let url = made.members["QueueUrl"] as? String { return url }
    problem = "CreateQueue: \(made.error)"
    return nil
  }

  /// Messages whose bytes the server says are damaged, which it delivers to nobody; nil if it has
  /// no such figure or does not answer, and then nothing is excused.
  func setAside() -> Int? {
    let page = try? SQSClient(endpoint, timeoutSeconds: 5).page("/penstock/metrics")
    let name = "penstock_set_aside_messages "
    let line = page?.split(separator: "\n").first { $0.hasPrefix(name) }
    return line.flatMap { Int($0.dropFirst(name.count)) }
  }

  /// What the server printed, from a byte of its log on.
  static func text(of log: String, from start: Int) -> String {
    let data = FileManager.default.contents(atPath: log) ?? Data()
    return String(decoding: data.dropFirst(start), as: UTF8.self)
  }

  static func size(of path: String) -> Int {
    let attributes = try? FileManager.default.attributesOfItem(atPath: path)
    return attributes?[.size] as? Int ?? 0
  }

  /// Makes a directory whose name survives power loss, for servers that expect one.
  private static func makeDirectory(_ path: String) throws {
    guard !FileManager.default.fileExists(atPath: path) else { return }
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    for name in [path, URL(fileURLWithPath: path).deletingLastPathComponent().path] {
      let descriptor = open(name, O_RDONLY)
      guard descriptor >= 0 else { continue }
      _ = fsync(descriptor)
      _ = close(descriptor)
    }
  }

  /// A port that is free now.
  private static func freePort() throws(CrashtestError) -> Int {
    #if canImport(Glibc)
      let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
    #else
      let descriptor = socket(AF_INET, SOCK_STREAM, 0)
    #endif
    defer { _ = close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
      }
    }
    guard descriptor >= 0, result else { throw CrashtestError("no free port: errno \(errno)") }
    return Int(UInt16(bigEndian: address.sin_port))
  }
}

/// The user or the environment asked the run to end.
struct Interrupted: Error {}
