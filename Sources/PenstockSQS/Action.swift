// SPDX-License-Identifier: Apache-2.0

/// The actions that this version carries out.
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

  /// Actions of the API that are refused by name, so that nobody takes them for a typing error.
  static let unsupported: Set<String> = [
    "AddPermission", "RemovePermission", "TagQueue", "UntagQueue", "ListQueueTags",
  ]

  init(named name: String) throws(SQSError) {
    if let action = Action(rawValue: name) {
      self = action
    } else if Self.unsupported.contains(name) {
      throw .unsupported("the action \(name)")
    } else {
      throw SQSError(
        .unknownOperation, "The action \(SQSError.echo(name)) is not valid for this endpoint.")
    }
  }
}
