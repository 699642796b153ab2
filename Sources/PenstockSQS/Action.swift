// SPDX-License-Identifier: Apache-2.0

/// The actions of the API: all there are.
enum Action: String, CaseIterable, Sendable {
  case createQueue = "CreateQueue"
  case getQueueURL = "GetQueueUrl"
  case listQueues = "ListQueues"
  case deleteQueue = "DeleteQueue"
  case getQueueAttributes = "GetQueueAttributes"
  case setQueueAttributes = "SetQueueAttributes"
  case purgeQueue = "PurgeQueue"
  case sendMessage = "SendMessage"
  case sendMessageBatch = "SendMessageBatch"
  case receiveMessage = "ReceiveMessage"
  case deleteMessage = "DeleteMessage"
  case deleteMessageBatch = "DeleteMessageBatch"
  case changeMessageVisibility = "ChangeMessageVisibility"
  case changeMessageVisibilityBatch = "ChangeMessageVisibilityBatch"
  case listDeadLetterSourceQueues = "ListDeadLetterSourceQueues"
  case startMessageMoveTask = "StartMessageMoveTask"
  case listMessageMoveTasks = "ListMessageMoveTasks"
  case cancelMessageMoveTask = "CancelMessageMoveTask"
  case addPermission = "AddPermission"
  case removePermission = "RemovePermission"
  case tagQueue = "TagQueue"
  case untagQueue = "UntagQueue"
  case listQueueTags = "ListQueueTags"

  private static let byName = Dictionary(
    uniqueKeysWithValues: allCases.map { ($0.rawValue, $0) })

  init(named name: some StringProtocol) throws(SQSError) {
    guard let action = Self.byName[String(name)] else {
      throw SQSError(
        .unknownOperation,
        "The action \(SQSError.echo(String(name))) is not valid for this endpoint.")
    }
    self = action
  }
}
