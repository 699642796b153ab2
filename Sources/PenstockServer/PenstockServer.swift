// SPDX-License-Identifier: Apache-2.0
public import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
public import Penstock
internal import PenstockSQS
internal import Synchronization

/// Serves the SQS API of a store over HTTP/1.1.
///
/// The store belongs to the caller, who closes it after `stop`.
public final class PenstockServer: Sendable {
  private enum State {
    case new
    case starting
    case running(any Channel, MultiThreadedEventLoopGroup, [NIOLoopBound<ConnectionTable>])
    case stopped
  }

  /// Why a server did not start.
  public struct StartError: Error, CustomStringConvertible {
    public var description: String
  }

  private let shared: ServerShared
  private let logger: Logger
  private let state = Mutex(State.new)

  public init(
    store: Store, configuration: ServerConfiguration = ServerConfiguration(),
    logger: Logger = Logger(label: "penstock.server")
  ) {
    shared = ServerShared(
      service: SQSService(store: store, configuration: configuration.service),
      configuration: configuration, wallSeconds: { store.now.milliseconds / 1000 },
      connections: Gauge(limit: configuration.maximumConnections),
      bufferedBytes: Gauge(limit: configuration.maximumBufferedBytes),
      unsentBytes: Gauge(limit: configuration.maximumBufferedBytes))
    self.logger = logger
  }

  /// Listens. A server starts once.
  ///
  /// - Throws: `StartError`, for example when the port is taken; the server is then stopped.
  public func start() async throws -> ServerAddress {
    let isFirst = state.withLock { state in
      guard case .new = state else { return false }
      state = .starting
      return true
    }
    guard isFirst else { throw StartError(description: "the server was started before") }
    let configuration = shared.configuration
    let group = MultiThreadedEventLoopGroup(
      numberOfThreads: max(1, configuration.eventLoops))
    do {
      var tables: [NIOLoopBound<ConnectionTable>] = []
      for loop in group.makeIterator() {
        let table = loop.submit { [shared] in
          NIOLoopBound(ConnectionTable(eventLoop: loop, shared: shared), eventLoop: loop)
        }
        tables.append(try await table.get())
      }
      let channel = try await bootstrap(group, tables)
        .bind(host: configuration.host, port: configuration.port).get()
      state.withLock { [tables] in $0 = .running(channel, group, tables) }
      let address = ServerAddress(
        host: channel.localAddress?.ipAddress ?? configuration.host,
        port: channel.localAddress?.port ?? configuration.port)
      logger.debug("listening", metadata: ["address": "\(address)"])
      return address
    } catch {
      state.withLock { $0 = .stopped }
      await shutDown(group)
      throw StartError(
        description: "cannot listen on \(configuration.host) port \(configuration.port): "
          + "\(error)")
    }
  }

  /// Stops listening, answers long polls with no messages, lets requests in progress finish for
  /// as long as the configuration says, and closes all connections.
  public func stop() async {
    let old = state.withLock { state in
      let old = state
      if case .running = old { state = .stopped }
      return old
    }
    guard case .running(let channel, let group, let tables) = old else { return }
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
      _ = try? await table.eventLoop.submit { table.value.mailbox.close() }.get()
    }
    await shutDown(group)
  }

  private func shutDown(_ group: MultiThreadedEventLoopGroup) async {
    do {
      try await group.shutdownGracefully()
    } catch {
      logger.debug("stopping the event loops failed", metadata: ["error": "\(error)"])
    }
  }

  private func bootstrap(
    _ group: MultiThreadedEventLoopGroup, _ tables: [NIOLoopBound<ConnectionTable>]
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
      .childChannelInitializer { [shared, byLoop] channel in
        guard let table = byLoop[ObjectIdentifier(channel.eventLoop)] else {
          return channel.close()
        }
        return Self.prepare(channel, table, shared)
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
      try pipeline.addHandler(ByteArrivalHandler(connection: connection))
      var limits = NIOHTTPDecoderLimitConfiguration()
      limits.maxHeaderFieldSize = 16 << 10
      limits.maxHeaderListSize = 64 << 10
      limits.maxHeaderFieldCount = 128
      try pipeline.configureHTTPServerPipeline(
        withPipeliningAssistance: true, withErrorHandling: true,
        withEncoderConfiguration: HTTPResponseEncoder.Configuration(),
        withDecoderLimitConfiguration: limits)
      try pipeline.addHandler(connection)
    }
  }
}
