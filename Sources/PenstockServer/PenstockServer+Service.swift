// SPDX-License-Identifier: Apache-2.0
public import ServiceLifecycle

extension PenstockServer: Service {
  /// For a `ServiceGroup`: returns when the server has stopped, and stops it when the group shuts
  /// down gracefully or the task is cancelled.
  ///
  /// The server serves since `start`. Close the store after `run` of the group:
  ///
  /// ```swift
  /// let server = try await PenstockServer.start(serving: store)
  /// let group = ServiceGroup(
  ///   services: [server], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
  /// try await group.run()
  /// try await store.close()
  /// ```
  public func run() async {
    await withTaskCancellationOrGracefulShutdownHandler {
      await untilStopped()
    } onCancelOrGracefulShutdown: {
      self.beginStop()
    }
  }
}
