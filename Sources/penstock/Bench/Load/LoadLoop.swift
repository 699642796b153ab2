// SPDX-License-Identifier: Apache-2.0
import PenstockSystem

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// How long, and how fast.
struct LoadPlan {
  /// Seconds that are measured; 0 only greets.
  var seconds: Double
  /// Seconds before, that are not.
  var warmUp = 0.0
  /// Rounds due per second; nil begins the next when the last has ended.
  var rate: Double?
  /// At most so many rounds.
  var rounds: Int?

  /// When rounds are due, at a steady rate: the first at once.
  struct Schedule {
    private let start: UInt64
    private let interval: Double
    private(set) var begun = 0

    init(from start: UInt64, rate: Double) { (self.start, interval) = (start, 1e9 / rate) }

    var next: UInt64 { start + UInt64((Double(begun) * interval).rounded()) }

    /// When the round was due that begins now; nil while none is due.
    mutating func take(at now: UInt64) -> UInt64? {
      let due = next
      guard due <= now else { return nil }
      begun += 1
      return due
    }
  }
}

/// A host and a port of TCP.
struct LoadAddress: Hashable, Sendable {
  var host: String
  var port: Int

  /// `HOST:PORT`.
  init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ":")
    guard parts.count == 2, let port = Int(parts[1]), (1...65535).contains(port) else { return nil }
    self.init(host: String(parts[0]), port: port)
  }

  init(host: String, port: Int) { (self.host, self.port) = (host, port) }
}

/// Connections to one server, driven by one thread.
///
/// Closed loop: each connection begins its next round when the last has ended. Open loop: rounds
/// are due by a fixed schedule, wait for a connection that is free, and are measured from when
/// they were due, so a server that stalls is not asked less meanwhile. A dialogue that is not paced
/// goes on as in a closed loop.
final class LoadLoop {
  /// Greets with each, then runs the plan.
  /// - Returns: the rounds that began after the warm-up, or were due after it.
  static func run(
    _ protocols: [any LoadProtocol], to address: LoadAddress, _ plan: LoadPlan
  ) throws -> Measurement {
    let loop = try LoadLoop(protocols, to: address, plan)
    defer { loop.close() }
    try loop.greet()
    guard plan.seconds > 0 else { return loop.result }
    try loop.measure()
    return loop.result
  }

  private final class Connection {
    enum State { case connecting, greeting, idle, busy, over }

    let dialogue: any LoadProtocol
    var descriptor: Int32 = -1
    var state = State.connecting
    /// Whether the greeting has ended once.
    var hasGreeted = false
    /// Whether a round is under way, perhaps on a connection that is made again.
    var isInRound = false
    var output = LoadOutput()
    var waitsToWrite = false
    /// Connections that were lost since the last answer.
    var losses = 0
    /// When the round began, or was due.
    var began: UInt64 = 0
    var input = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    var first = 0
    var end = 0

    init(_ dialogue: any LoadProtocol) { self.dialogue = dialogue }
    deinit { input.deallocate() }
  }

  private let address: LoadAddress
  private let plan: LoadPlan
  private let clock = RealClock()
  private let poller: Poller
  private let connections: [Connection]
  private var byDescriptor: [Connection?] = []
  private var resolved = sockaddr_in()
  private var result = Measurement()
  private var greeted = 0
  private var busy = 0
  private var begun = 0
  private var free: [Connection] = []
  private var schedule: LoadPlan.Schedule?
  private var isMeasuring = false
  /// When measuring starts and ends.
  private var start: UInt64 = 0
  private var finish: UInt64 = 0
  private var progress: UInt64 = 0

  /// How long nothing may be answered.
  private static let patience: UInt64 = 15_000_000_000

  private init(
    _ protocols: [any LoadProtocol], to address: LoadAddress, _ plan: LoadPlan
  ) throws {
    (self.address, self.plan) = (address, plan)
    poller = try Poller()
    connections = protocols.map(Connection.init)
    resolved = try Self.resolve(address)
  }

  private static func resolve(_ address: LoadAddress) throws -> sockaddr_in {
    var hints = addrinfo()
    hints.ai_family = AF_INET
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(address.host, nil, &hints, &found) == 0, let found else {
      throw LoadError("\(address.host) is no host.")
    }
    defer { freeaddrinfo(found) }
    var resolved = sockaddr_in()
    guard let bytes = found.pointee.ai_addr else { throw LoadError("no address") }
    memcpy(&resolved, bytes, MemoryLayout<sockaddr_in>.size)
    resolved.sin_port = in_port_t(address.port).bigEndian
    return resolved
  }

  private func close() {
    for connection in connections { end(connection) }
  }

  // MARK: Phases

  private func greet() throws {
    progress = clock.monotonicNanoseconds()
    for connection in connections { try connect(connection) }
    while greeted < connections.count { try turn(until: nil) }
  }

  private func measure() throws {
    let now = clock.monotonicNanoseconds()
    start = now + UInt64(plan.warmUp * 1e9)
    finish = start + UInt64(plan.seconds * 1e9)
    isMeasuring = true
    progress = now
    schedule = plan.rate.map { LoadPlan.Schedule(from: now, rate: $0) }
    for connection in connections.reversed() {
      connection.dialogue.measures(start..<finish)
      try next(connection, now)
    }
    while true {
      let due = try dispatch()
      if busy == 0, due == nil { break }
      try turn(until: due)
    }
  }

  /// Begins what is due, in an open loop.
  /// - Returns: when the next is due that a connection is free for.
  private func dispatch() throws -> UInt64? {
    guard schedule != nil else { return nil }
    let now = clock.monotonicNanoseconds()
    while let next = schedule?.next, next < finish, hasMoreRounds {
      guard now < finish + Self.patience else {
        throw LoadError("\(address.host):\(address.port) is 15 s behind the rate: try a lower one.")
      }
      guard let connection = free.last else { return nil }
      guard let due = schedule?.take(at: now) else { return next }
      free.removeLast()
      try begin(connection, due)
    }
    return nil
  }

  private var hasMoreRounds: Bool { plan.rounds.map { begun < $0 } ?? true }

  private func next(_ connection: Connection, _ now: UInt64) throws {
    if schedule != nil, connection.dialogue.isPaced {
      free.append(connection)
    } else if now < finish, hasMoreRounds, !connection.dialogue.isDone {
      try begin(connection, now)
    } else {
      try flush(connection)
      end(connection)
    }
  }

  private func begin(_ connection: Connection, _ time: UInt64) throws {
    begun += 1
    busy += 1
    connection.began = time
    connection.isInRound = true
    connection.dialogue.begin(at: time, &connection.output)
    guard connection.state == .idle else { return }
    connection.state = .busy
    // Else it is said on the connection that is made instead.
    if !connection.dialogue.closes { try flush(connection) }
  }

  /// - Parameter messages: that were moved; nil of a round that is not measured.
  private func roundEnded(_ connection: Connection, _ messages: Int?) throws {
    let now = clock.monotonicNanoseconds()
    progress = now
    guard connection.isInRound else {
      connection.state = .idle
      if !connection.hasGreeted {
        connection.hasGreeted = true
        greeted += 1
      }
      return
    }
    busy -= 1
    connection.isInRound = false
    connection.state = .idle
    if let messages, connection.began >= start {
      result.record(messages, from: connection.began, to: now, since: start)
    }
    try next(connection, now)
  }

  // MARK: Sockets

  private func connect(_ connection: Connection) throws {
    #if canImport(Glibc)
      let kind = Int32(SOCK_STREAM.rawValue)
    #else
      let kind = SOCK_STREAM
    #endif
    let descriptor = socket(AF_INET, kind, 0)
    guard descriptor >= 0 else { throw LoadError("socket: \(Self.error(errno))") }
    connection.descriptor = descriptor
    connection.state = .connecting
    (connection.first, connection.end) = (0, 0)
    // A round that is under way is said again; what was answered is not.
    if connection.isInRound { connection.output.sent = 0 } else { connection.output = LoadOutput() }
    var one: Int32 = 1
    setsockopt(
      descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
    guard fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0 else {
      throw LoadError("fcntl: \(Self.error(errno))")
    }
    let status = withUnsafePointer(to: resolved) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bytes in
        #if canImport(Glibc)
          Glibc.connect(descriptor, bytes, socklen_t(MemoryLayout<sockaddr_in>.size))
        #elseif canImport(Musl)
          Musl.connect(descriptor, bytes, socklen_t(MemoryLayout<sockaddr_in>.size))
        #else
          Darwin.connect(descriptor, bytes, socklen_t(MemoryLayout<sockaddr_in>.size))
        #endif
      }
    }
    guard status == 0 || errno == EINPROGRESS else {
      throw LoadError("\(address.host):\(address.port): \(Self.error(errno))")
    }
    while byDescriptor.count <= Int(descriptor) { byDescriptor.append(nil) }
    byDescriptor[Int(descriptor)] = connection
    connection.waitsToWrite = true
    try poller.set(descriptor, isNew: true, writes: true)
  }

  private func end(_ connection: Connection) {
    guard connection.descriptor >= 0 else { return }
    byDescriptor[Int(connection.descriptor)] = nil
    #if canImport(Glibc)
      _ = Glibc.close(connection.descriptor)
    #elseif canImport(Musl)
      _ = Musl.close(connection.descriptor)
    #else
      _ = Darwin.close(connection.descriptor)
    #endif
    connection.descriptor = -1
    connection.state = .over
  }

  private func lost(_ connection: Connection, _ why: String) throws {
    connection.losses += 1
    guard connection.dialogue.reconnects, connection.losses < 5 else {
      throw LoadError("\(address.host):\(address.port) closed a connection: \(why)")
    }
    end(connection)
    try connect(connection)
  }

  private func turn(until due: UInt64?) throws {
    let count = try poller.wait(until: due)
    if count == 0, clock.monotonicNanoseconds() > progress + Self.patience {
      if busy == 0, isMeasuring {
        progress = clock.monotonicNanoseconds()
      } else {
        throw LoadError("\(address.host):\(address.port) gave no answer for 15 s.")
      }
    }
    for place in 0..<count {
      let descriptor = Int(poller.ready[place])
      guard descriptor < byDescriptor.count, let connection = byDescriptor[descriptor] else {
        continue
      }
      try serve(connection)
    }
  }

  private func serve(_ connection: Connection) throws {
    if connection.state == .connecting {
      var status: Int32 = 0
      var size = socklen_t(MemoryLayout<Int32>.size)
      getsockopt(connection.descriptor, SOL_SOCKET, SO_ERROR, &status, &size)
      guard status == 0 else {
        throw LoadError("\(address.host):\(address.port): \(Self.error(status))")
      }
      connection.state = .greeting
      if connection.dialogue.connected(&connection.output) {
        connection.state = connection.isInRound ? .busy : .idle
        if !connection.hasGreeted {
          connection.hasGreeted = true
          greeted += 1
        }
      }
      return try flush(connection)
    }
    if connection.waitsToWrite { try flush(connection) }
    if connection.state != .over { try receive(connection) }
  }

  private func flush(_ connection: Connection) throws {
    let flags = Int32(Self.noSignal)
    while connection.output.sent < connection.output.bytes.count {
      let (descriptor, sent) = (connection.descriptor, connection.output.sent)
      let count = connection.output.bytes.withUnsafeBytes {
        send(descriptor, $0.baseAddress.map { $0 + sent }, $0.count - sent, flags)
      }
      if count < 0 {
        if errno == EINTR { continue }
        // What the server said before it closed is read first.
        guard errno == EAGAIN else { break }
        if !connection.waitsToWrite {
          connection.waitsToWrite = true
          try poller.set(descriptor, isNew: false, writes: true)
        }
        return
      }
      connection.output.sent += count
    }
    if connection.waitsToWrite {
      connection.waitsToWrite = false
      try poller.set(connection.descriptor, isNew: false, writes: false)
    }
  }

  private func receive(_ connection: Connection) throws {
    if connection.end == connection.input.count { makeRoom(connection) }
    let count = recv(
      connection.descriptor, connection.input.baseAddress.map { $0 + connection.end },
      connection.input.count - connection.end, 0)
    guard count > 0 else {
      if count < 0, errno == EAGAIN || errno == EINTR { return }
      return try lost(connection, count == 0 ? "without an answer" : Self.error(errno))
    }
    connection.end += count
    var isPartial = false
    while connection.first < connection.end, !isPartial {
      let bytes = UnsafeRawBufferPointer(
        rebasing: connection.input[connection.first..<connection.end])
      let answer = try connection.dialogue.read(bytes, &connection.output)
      switch answer {
      case .partial:
        isPartial = true
        continue
      case .taken(let count):
        connection.first += count
        progress = clock.monotonicNanoseconds()
      case .ended(let count, let messages):
        connection.first += count
        try roundEnded(connection, messages)
      case .passed(let count):
        connection.first += count
        try roundEnded(connection, nil)
      }
      connection.losses = 0
      if connection.state == .over { return }
      if connection.dialogue.closes {
        end(connection)
        return try connect(connection)
      }
    }
    if connection.first == connection.end { (connection.first, connection.end) = (0, 0) }
    try flush(connection)
  }

  private func makeRoom(_ connection: Connection) {
    let rest = UnsafeRawBufferPointer(
      rebasing: connection.input[connection.first..<connection.end])
    if connection.first > connection.input.count / 2 {
      // The halves do not overlap.
      connection.input.copyMemory(from: rest)
    } else {
      let larger = UnsafeMutableRawBufferPointer.allocate(
        byteCount: connection.input.count * 2, alignment: 16)
      larger.copyMemory(from: rest)
      connection.input.deallocate()
      connection.input = larger
    }
    (connection.first, connection.end) = (0, rest.count)
  }

  static func error(_ code: Int32) -> String { String(cString: strerror(code)) }

  #if canImport(Darwin)
    private static let noSignal = 0
  #else
    private static let noSignal = MSG_NOSIGNAL
  #endif
}
