// SPDX-License-Identifier: Apache-2.0
public import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
public import Penstock
internal import PenstockSQS
internal import PenstockSystem
internal import Synchronization

/// Serves the queues of an open store over the SQS API, in HTTP/1.1.
///
/// ```swift
/// let server = try await PenstockServer.start(serving: store, port: 9324)
/// // … the program goes on using the store …
/// await server.stop()
/// try await store.close()
/// ```
///
/// The store belongs to the caller, who may use it in any way meanwhile: what a client sends, the
/// program receives, and the other way round. An answer to a client means what `store.durability`
/// says. A store may be served by several servers, and again after a `stop`. When it is closed
/// under a server, clients are answered that the service is unavailable, until `stop`.
///
/// A server serves from `start` to `stop`, also when nobody holds a reference to it. It is a
/// `Service` of swift-service-lifecycle too: see `run`.
///
/// Without credentials whoever reaches the address can use all queues of the store, so it is then
/// one of this machine alone.
///
/// A program that has a long log to read can listen before its store is open: see `listen`.
///
/// Invariants
/// - I1: the state goes from `running` over `stopping` to `stopped`, never back.
/// - I2: each continuation in the state is resumed once, when the state becomes `stopped`.
public final class PenstockServer: Sendable {
  private enum State {
    /// With those who wait for the end.
    case running([CheckedContinuation<Void, Never>])
    case stopping([CheckedContinuation<Void, Never>])
    case stopped
  }

  /// Why a server did not start.
  public struct StartError: Error, CustomStringConvertible {
    /// One line that names the address.
    public let description: String
  }

  private let address: ServerAddress
  private let shared: ServerShared
  private let opening: SQSOpening
  private let drainFlag: DrainFlag
  private let watcher: FileWatcher
  private let channel: any Channel
  private let group: MultiThreadedEventLoopGroup
  private let tables: [NIOLoopBound<ConnectionTable>]
  private let logger: Logger
  private let state = Mutex(State.running([]))

  private init(
    _ shared: ServerShared, _ channel: any Channel, _ address: ServerAddress,
    _ group: MultiThreadedEventLoopGroup, _ tables: [NIOLoopBound<ConnectionTable>],
    _ opening: SQSOpening, _ drainFlag: DrainFlag, _ watcher: FileWatcher, _ logger: Logger
  ) {
    self.opening = opening
    self.drainFlag = drainFlag
    self.watcher = watcher
    self.shared = shared
    self.channel = channel
    self.address = address
    self.group = group
    self.tables = tables
    self.logger = logger
  }

  // MARK: Starting

  /// Starts a server: on return it listens, and clients are answered.
  ///
  /// - Parameters:
  ///   - store: stays open for as long as the caller leaves it open; `stop` does not close it.
  ///   - host: name or address of an interface of this machine. Anything but loopback needs
  ///     credentials: see `Configuration.credentialsPath`.
  ///   - port: 0 takes any free one; `port` of the server says which.
  ///   - logger: takes what concerns the server itself; what an operator should read of the store
  ///     goes to `StoreOptions.log`.
  /// - Throws: `StartError` when nothing can listen there, for example because the port is taken,
  ///   or when the certificate, its key or another watched file is not as it must be.
  ///   Nothing is left behind then, and the store is as it was.
  public static func start(
    serving store: Store, on host: String = "127.0.0.1", port: Int = 9324,
    configuration: Configuration = Configuration(),
    logger: Logger = Logger(label: "penstock.server")
  ) async throws(StartError) -> PenstockServer {
    try await begin(store, on: host, port: port, configuration, logger)
  }

  /// Starts a server that has no store yet: it answers that the service is unavailable, and health
  /// under `/penstock/health/`, until `serve` gives it one.
  ///
  /// ```swift
  /// let server = try await PenstockServer.listen(port: 9324)
  /// var options = StoreOptions()
  /// options.onEvent = server.note
  /// let store = try await Store.open(at: path, options: options)
  /// await server.serve(store)
  /// ```
  ///
  /// When the store cannot be opened, `stop` the server.
  ///
  /// - Throws: `StartError`, as `start` does.
  public static func listen(
    on host: String = "127.0.0.1", port: Int = 9324,
    configuration: Configuration = Configuration(),
    logger: Logger = Logger(label: "penstock.server")
  ) async throws(StartError) -> PenstockServer {
    try await begin(nil, on: host, port: port, configuration, logger)
  }

  /// Notes how far the opening of the store is, for `/penstock/health/ready`.
  @Sendable public func note(_ event: StoreEvent) {
    if case .recovering(let segments, let total) = event {
      opening.note(segments: segments, of: total)
    }
  }

  /// Gives a server that listens its store. May be called once, and not after `start`.
  public func serve(_ store: Store) async {
    let handler = Self.service(store, shared, drainFlag)
    for table in tables {
      do {
        try await table.eventLoop.submit {
          precondition(table.value.handler is SQSOpening, "the server has a store")
          table.value.handler = handler
          table.value.wallSeconds = { store.now.milliseconds / 1000 }
        }.get()
      } catch {
        logger.debug("the server has stopped", metadata: ["error": "\(error)"])
      }
    }
  }

  private static func service(
    _ store: Store, _ shared: ServerShared, _ drainFlag: DrainFlag
  ) -> SQSService {
    var service = shared.configuration.service
    service.isDraining = { drainFlag.isUp }
    return SQSService(store: store, configuration: service, credentials: shared.credentials)
  }

  private static func begin(
    _ store: Store?, on host: String, port: Int, _ configuration: Configuration, _ logger: Logger
  ) async throws(StartError) -> PenstockServer {
    guard (0...65_535).contains(port) else {
      throw StartError(
        description: "cannot listen on \(host) port \(port): ports end at 65535")
    }
    if let problem = configuration.problem(on: host) {
      throw StartError(description: "cannot listen on \(host) port \(port): \(problem)")
    }
    let tls = configuration.tls.map { TLSCredentials($0) }
    var files = configuration.watchedFiles + (tls.map { [$0.files] } ?? [])
    var credentials: CredentialStore?
    if let path = configuration.credentialsPath {
      let store = CredentialStore(region: configuration.region, account: configuration.accountID)
      credentials = store
      files.append(
        WatchedFiles([path]) { contents in
          do throws(CredentialsError) {
            try store.replace(parsing: String(decoding: contents[0], as: UTF8.self))
          } catch { throw StartError(description: "\(path): \(error)") }
        })
    }
    let watcher: FileWatcher
    do {
      watcher = try FileWatcher(files, every: configuration.watchInterval, logger)
    } catch {
      throw StartError(description: "cannot listen on \(host) port \(port): \(error)")
    }
    let shared = ServerShared(
      configuration: configuration, tls: tls, credentials: credentials,
      connections: Gauge(limit: min(configuration.maximumConnections, FileLimit.connections)),
      bufferedBytes: Gauge(limit: configuration.maximumBufferedBytes),
      unsentBytes: Gauge(limit: configuration.maximumBufferedBytes))
    let (opening, drainFlag) = (SQSOpening(), DrainFlag())
    let service = store.map { Self.service($0, shared, drainFlag) }
    let wallSeconds: @Sendable () -> Int64 =
      if let store {
        { store.now.milliseconds / 1000 }
      } else {
        { RealClock().wallMilliseconds() / 1000 }
      }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: max(1, configuration.eventLoops))
    do {
      var tables: [NIOLoopBound<ConnectionTable>] = []
      for loop in group.makeIterator() {
        let table = loop.submit {
          NIOLoopBound(
            ConnectionTable(
              eventLoop: loop, shared: shared, handler: service ?? opening,
              wallSeconds: wallSeconds),
            eventLoop: loop)
        }
        tables.append(try await table.get())
      }
      let channel = try await bootstrap(group, tables, shared).bind(host: host, port: port).get()
      let address = ServerAddress(
        host: channel.localAddress?.ipAddress ?? host, port: channel.localAddress?.port ?? port,
        isSecure: tls != nil)
      logger.debug("listening", metadata: ["address": "\(address)"])
      return PenstockServer(
        shared, channel, address, group, tables, opening, drainFlag, watcher, logger)
    } catch {
      await watcher.stop()
      await shutDown(group, logger)
      throw StartError(description: "cannot listen on \(host) port \(port): \(error)")
    }
  }

  /// True for the names and addresses that only this machine reaches.
  public static func isLoopback(_ host: String) -> Bool {
    if host == "localhost" || host == "::1" { return true }
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
  }

  /// The address it listens on, as numbers.
  public var host: String { address.host }

  /// The port it listens on.
  public var port: Int { address.port }

  /// What clients take as their endpoint, for example `http://127.0.0.1:9324`.
  public var endpoint: String { address.description }

  // MARK: Stopping

  /// Stops listening, answers long polls with no messages, lets requests in progress finish for
  /// as long as the configuration says, and closes all connections.
  ///
  /// May be called more than once; each call returns when the server has stopped. The store stays
  /// open. Cancellation of the task does not cut it short.
  public func stop() async {
    beginStop()
    await untilStopped()
  }

  /// Begins to stop, unless that was begun before.
  func beginStop() {
    let isFirst = state.withLock { state in
      guard case .running(let waiting) = state else { return false }
      state = .stopping(waiting)
      return true
    }
    guard isFirst else { return }
    drainFlag.raise()
    Task {
      await drain()
      let waiting = state.withLock { state -> [CheckedContinuation<Void, Never>] in
        guard case .stopping(let waiting) = state else { return [] }
        state = .stopped
        return waiting
      }
      for continuation in waiting { continuation.resume() }
    }
  }

  /// Returns when the server has stopped, whoever asked for it.
  func untilStopped() async {
    await withCheckedContinuation { continuation in
      let hasStopped = state.withLock { state in
        switch state {
        case .running(let waiting): state = .running(waiting + [continuation])
        case .stopping(let waiting): state = .stopping(waiting + [continuation])
        case .stopped: return true
        }
        return false
      }
      if hasStopped { continuation.resume() }
    }
  }

  private func drain() async {
    do {
      try await channel.close().get()
    } catch {
      logger.debug("closing the listening socket failed", metadata: ["error": "\(error)"])
    }
    let deadline = NIODeadline.now() + shared.configuration.drainTimeout.timeAmount
    await withTaskGroup(of: Void.self) { tasks in
      for table in tables {
        tasks.addTask { [logger] in
          do {
            try await table.eventLoop.flatSubmit {
              table.value.drain(deadline: deadline)
            }.get()
          } catch {
            logger.debug("draining failed", metadata: ["error": "\(error)"])
          }
        }
      }
    }
    for table in tables {
      _ = try? await table.eventLoop.submit { [opening] in
        table.value.mailbox.close()
        // The store may hold this server by `note`: not the other way round as well.
        table.value.handler = opening
      }.get()
    }
    await watcher.stop()
    await Self.shutDown(group, logger)
  }

  private static func shutDown(_ group: MultiThreadedEventLoopGroup, _ logger: Logger) async {
    do {
      try await group.shutdownGracefully()
    } catch {
      logger.debug("stopping the event loops failed", metadata: ["error": "\(error)"])
    }
  }

  // MARK: Connections

  private static func bootstrap(
    _ group: MultiThreadedEventLoopGroup, _ tables: [NIOLoopBound<ConnectionTable>],
    _ shared: ServerShared
  ) -> ServerBootstrap {
    var byLoop: [ObjectIdentifier: NIOLoopBound<ConnectionTable>] = [:]
    for table in tables { byLoop[ObjectIdentifier(table.eventLoop)] = table }
    return ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 4096)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .serverChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
        }
      }
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelOption(.maxMessagesPerRead, value: 4)
      // Over TLS a client says so itself before it closes its side.
      .childChannelOption(.allowRemoteHalfClosure, value: shared.tls == nil)
      .childChannelInitializer { [byLoop] channel in
        guard let table = byLoop[ObjectIdentifier(channel.eventLoop)] else {
          return channel.close()
        }
        return prepare(channel, table, shared)
      }
  }

  /// Builds the pipeline of a new connection, or turns it away.
  private static func prepare(
    _ channel: any Channel, _ table: NIOLoopBound<ConnectionTable>, _ shared: ServerShared
  ) -> EventLoopFuture<Void> {
    guard !table.value.isDraining, shared.connections.take(1) else { return channel.close() }
    channel.closeFuture.whenComplete { _ in shared.connections.giveBack(1) }
    return channel.eventLoop.makeCompletedFuture {
      let connection = HTTPConnection(table: table.value)
      let pipeline = channel.pipeline.syncOperations
      if let tls = shared.tls?.handler() { try pipeline.addHandler(tls) }
      try pipeline.addHandler(ByteArrivalHandler(connection: connection))
      var limits = NIOHTTPDecoderLimitConfiguration()
      limits.maxHeaderFieldSize = 16 << 10
      limits.maxHeaderListSize = 64 << 10
      limits.maxHeaderFieldCount = 128
      try pipeline.addHandler(
        ByteToMessageHandler(
          HTTPRequestDecoder(limitConfiguration: limits), maximumBufferSize: 1 << 20))
      try pipeline.addHandler(connection)
    }
  }
}

/// Whether a server has begun to stop.
final class DrainFlag: Sendable {
  private let state = Atomic<Bool>(false)

  // Relaxed: nothing else hangs on it.
  var isUp: Bool { state.load(ordering: .relaxed) }
  func raise() { state.store(true, ordering: .relaxed) }
}
